//! Days of free mana as they are in the world: zones on both sides of the date line, and the days on which clocks are changed.

use crate::story::{Story, User, spend_of};
use mana_credits::ledger::verify::{Scope, verify};
use mana_kernel::Clock as _;
use mana_testkit::Client;
use secrecy::SecretString;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const KEY: &str = "a-service-key-of-the-environment";

/// Has sessions that begin from now on take `faked.now()` for the database's time.
const OWN_TIME: &str = "CREATE SCHEMA faked;
    CREATE TABLE faked.moment (at timestamptz NOT NULL);
    INSERT INTO faked.moment VALUES (now());
    CREATE FUNCTION faked.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM faked.moment';
    GRANT USAGE ON SCHEMA faked TO PUBLIC;
    GRANT SELECT ON faked.moment TO PUBLIC;
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = faked, pg_catalog, public', current_database()); END $$;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'mana_service'";

/// A service in the zone, on a database whose time is what the story says.
struct World {
    story: Story,
}

impl World {
    async fn at(at: OffsetDateTime) -> Self {
        let story = Story::with(|settings| settings.service_key = Some(SecretString::from(KEY))).await;
        sqlx::raw_sql(OWN_TIME).execute(&mut story.database.owner().await).await.unwrap();
        let world = Self { story };
        world.becomes(at).await;
        world
    }

    #[expect(clippy::arithmetic_side_effects, reason = "no story is as far away as time reaches")]
    async fn becomes(&self, at: OffsetDateTime) {
        self.story.clock.advance(at - self.story.clock.now());
        sqlx::query("UPDATE faked.moment SET at = $1")
            .bind(at)
            .execute(&mut self.story.database.owner().await)
            .await
            .unwrap();
    }

    async fn server_in(&self, zone: &str) -> Client {
        self.story.replica_with(|settings| settings.credits_daily_zone = zone.to_owned()).await.client
    }

    /// Asks for everything that brings the mana of a day, and says for how many days it has come.
    async fn days_of(&self, user: &User, servers: &[&Client]) -> i64 {
        for server in servers {
            let path = format!("/api/v1/credits/balance/{}", user.id);
            assert_eq!(server.get(&path).header("x-service-key", KEY).send().await.status, 200);
            let mut spend = spend_of(1);
            spend["userId"] = json!(user.id);
            let done = server.post("/api/v1/credits/use", &spend).header("x-service-key", KEY).send().await;
            assert_eq!(done.status, 201, "{}", done.json);
        }
        let days: Vec<String> = sqlx::query_scalar(
            "SELECT metadata ->> 'day' FROM credits.transactions JOIN credits.balances USING (wallet_id)
             WHERE user_id = $1 AND description = 'Daily free credits' ORDER BY transactions.sequence",
        )
        .bind(&user.id)
        .fetch_all(&mut self.story.database.owner().await)
        .await
        .unwrap();
        assert!(days.is_sorted_by(|one, next| one < next), "each once, none after a later one: {days:?}");
        i64::try_from(days.len()).unwrap()
    }

    async fn books_are_true_in(&self, zone: &str) {
        let scope = Scope { since: None, daily_zone: zone };
        let report = verify(&self.story.database.service(), scope, |_| {}).await.unwrap();
        assert_eq!(report.findings, [], "{zone}");
    }
}

async fn registered(server: &Client, email: &str) -> User {
    let body = json!({"email": email, "password": crate::story::PASSWORD});
    assert_eq!(server.post("/api/v1/auth/register", &body).send().await.status, 201);
    User::of(&server.post("/api/v1/auth/login", &body).send().await)
}

fn said(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap()
}

#[tokio::test]
async fn who_changes_between_zones_gets_the_mana_of_no_day_twice() {
    // The furthest zones there are, 25 hours apart: midnight of 4 May in the east is 23:00 of 2 May in the west.
    let [east, west] = ["Pacific/Kiritimati", "Pacific/Pago_Pago"];
    let midnight = datetime!(2027-05-03 10:00 UTC);
    let world = World::at(midnight).await;
    let [in_east, in_west] = [world.server_in(east).await, world.server_in(west).await];
    let rover = registered(&in_west, "rover@example.com").await;
    let settler = registered(&in_east, "settler@example.com").await;
    assert_eq!(world.days_of(&settler, &[&in_east, &in_east]).await, 0, "not on the day of sign-up");
    assert_eq!(world.days_of(&rover, &[&in_west]).await, 0, "nor in the west");
    for hour in (0..96).step_by(6) {
        let at = midnight + Duration::hours(hour);
        world.becomes(at).await;
        let begun = hour / 24;
        assert_eq!(world.days_of(&settler, &[&in_east]).await, begun, "{}", said(at));
        // The rover was born two days earlier by the calendar, and has no more of it than the day that the settler began with.
        let tour = [&in_west, &in_east, &in_west, &in_east, &in_west];
        assert_eq!(world.days_of(&rover, &tour).await, begun + 1, "{}", said(at));
    }
    // Who stays in the west from now on waits until it is later there than it was in the east: 7 May began on the 6th at 10:00 UTC there, and
    // here the 8th begins on the 8th at 11:00.
    for (at, days) in [
        (datetime!(2027-05-07 10:59:59 UTC), 4),
        (datetime!(2027-05-07 11:00:00 UTC), 4),
        (datetime!(2027-05-08 10:59:59 UTC), 4),
        (datetime!(2027-05-08 11:00:00 UTC), 5),
        (datetime!(2027-05-09 10:59:59 UTC), 5),
        (datetime!(2027-05-09 11:00:00 UTC), 6),
    ] {
        world.becomes(at).await;
        assert_eq!(world.days_of(&rover, &[&in_west, &in_west]).await, days, "{}", said(at));
    }
    for zone in [east, west] {
        world.books_are_true_in(zone).await;
    }
}

#[tokio::test]
async fn a_day_of_23_or_25_hours_is_one_day() {
    for (noon_before, turns) in [
        // Clocks go from 2:00 to 3:00 on 28 March, and from 3:00 to 2:00 on 31 October.
        (
            datetime!(2027-03-26 11:00 UTC),
            [
                datetime!(2027-03-26 23:00 UTC),
                datetime!(2027-03-27 23:00 UTC),
                datetime!(2027-03-28 22:00 UTC),
            ],
        ),
        (
            datetime!(2027-10-29 10:00 UTC),
            [
                datetime!(2027-10-29 22:00 UTC),
                datetime!(2027-10-30 22:00 UTC),
                datetime!(2027-10-31 23:00 UTC),
            ],
        ),
    ] {
        let world = World::at(noon_before).await;
        let servers = [world.server_in("Europe/Berlin").await, world.server_in("Europe/Berlin").await];
        let ada = registered(&servers[0], "ada@example.com").await;
        let both = [&servers[0], &servers[1]];
        for (days, turn) in (0..).zip(turns) {
            world.becomes(turn - Duration::MICROSECOND).await;
            assert_eq!(world.days_of(&ada, &both).await, days, "before {}", said(turn));
            // In autumn, an hour comes twice.
            for later in [Duration::ZERO, Duration::hours(1), Duration::minutes(150), Duration::hours(22)] {
                world.becomes(turn + later).await;
                assert_eq!(world.days_of(&ada, &both).await, days + 1, "{} after {}", later, said(turn));
            }
        }
        world.books_are_true_in("Europe/Berlin").await;
    }
}
