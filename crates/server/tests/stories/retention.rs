//! What is deleted once nobody needs it, and what is not.

use crate::story::{Story, User};
use mana_platform::Database;
use mana_platform::prune::until_empty;
use time::Duration;

#[tokio::test]
async fn sessions_are_kept_for_a_month_after_their_end_and_live_ones_for_ever() {
    let story = Story::new().await;
    let ended = story.user("ada@example.com").await;
    let live = story.sign_in("ada@example.com").await;
    story.post("/api/v1/auth/logout", &serde_json::json!({"refreshToken": ended.refresh_token})).await;
    let sessions = "SELECT count(*) FROM auth.sessions";
    story
        .execute(
            "UPDATE auth.sessions SET revoked_at = now() - interval '29 days' WHERE revoked_at IS NOT NULL",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number(sessions).await, 2, "not yet");
    story
        .execute(
            "UPDATE auth.sessions SET revoked_at = now() - interval '31 days' WHERE revoked_at IS NOT NULL",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number(sessions).await, 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains").await, 1);
    assert_eq!(story.refresh(&live.refresh_token).await.status, 200);
    assert_eq!(story.refresh(&ended.refresh_token).await.status, 401);
}

#[tokio::test]
async fn those_that_ended_are_found_among_many_that_live() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    // More than are looked at together, with ended ones in each part.
    story
        .execute(
            "INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at)
             SELECT 'many-' || lpad(n::text, 6, '0'), (SELECT id FROM auth.users), sha256(convert_to(n::text, 'UTF8')), false,
                 now() - interval '90 days', now(), now() + CASE WHEN n % 3 = 0 THEN interval '-31 days' ELSE interval '1 day' END
             FROM generate_series(1, 21000) n",
        )
        .await;
    story
        .execute(
            "INSERT INTO auth.refresh_chains
                 (id, user_id, session_id, app_id, secret_version, seed, generation, rotated_at, expires_at)
             SELECT sessions.id || '-' || copy, sessions.user_id, sessions.id, 'app', secret_version, seed, 1, now(), sessions.expires_at
             FROM auth.sessions, generate_series(1, 2) copy, (SELECT * FROM auth.refresh_chains LIMIT 1) pattern WHERE sessions.id LIKE 'many-%'",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 14_001);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE expires_at < now()").await, 0);
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains").await, 28_001);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn a_server_whose_clock_is_ahead_deletes_nothing_that_lives() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::days(400));
    story.workers.prune().await;
    story.clock.advance(Duration::days(-400));
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn events_are_kept_as_long_as_the_setting_says() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let old = "INSERT INTO auth.security_events (id, type, created_at)
               SELECT ('01' || lpad(to_hex(n), 30, '0'))::uuid, 'sign_in_failed', now() - interval '500 days' FROM generate_series(1, 2500) n";
    story.execute(old).await;
    story.workers.prune().await;
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed'").await,
        0
    );
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events").await,
        2,
        "registered and signed in"
    );
}

/// How many there are, and how many of others' doing.
async fn events_of(story: &Story, user: &User) -> (i64, i64) {
    sqlx::query_as("SELECT count(*), count(actor) FROM auth.security_events WHERE user_id = $1")
        .bind(&user.id)
        .fetch_one(&mut story.database.owner().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_log_says_nothing_of_a_person_a_month_after_the_account_was_deleted() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let root = story.administrator("root@example.com").await;
    let act = serde_json::json!({"reason": "Ticket 17"});
    for verb in ["disable", "enable"] {
        let path = format!("/api/v1/admin/users/{}/{verb}", ada.id);
        assert_eq!(story.client.post(&path, &act).bearer(&root.access_token).send().await.status, 200);
    }
    let ada = story.sign_in("ada@example.com").await;
    let deleted = story.client.request(http::Method::DELETE, "/api/v1/auth/account");
    assert_eq!(deleted.bearer(&ada.access_token).send().await.status, 200);
    let of_ada = async || events_of(&story, &ada).await.0;
    let (mine, others) = events_of(&story, &ada).await;
    assert!(mine > others && others >= 2, "{mine} {others}");

    story.workers.prune().await;
    assert_eq!(of_ada().await, mine, "the month is not over");
    story.clock.advance(Duration::days(31));
    story.workers.prune().await;
    assert_eq!(of_ada().await, mine, "nor is it by the clock of the database");
    assert_eq!(story.number("SELECT count(*) FROM auth.erasures").await, 1, "it is tried again");

    story.execute("UPDATE auth.security_events SET created_at = created_at - interval '31 days'").await;
    story.clock.advance(Duration::days(2));
    story.workers.prune().await;
    assert_eq!(of_ada().await, others, "what others did to the account stays");
    assert_eq!(story.number("SELECT count(*) FROM auth.erasures").await, 0);
    assert!(events_of(&story, &bob).await.0 > 0, "whoever is there keeps the log");
}

#[tokio::test]
async fn the_database_lets_nobody_delete_what_has_just_happened() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let mut service = story.database.service().begin().await.unwrap();
    let done = sqlx::query("DELETE FROM auth.security_events").execute(&mut *service).await.unwrap();
    service.commit().await.unwrap();
    assert_eq!(done.rows_affected(), 0);
    assert_eq!(story.number("SELECT count(*) FROM auth.security_events").await, 2);
    let changed = sqlx::query("UPDATE auth.security_events SET type = 'nothing'")
        .execute(&mut *story.database.service().acquire().await.unwrap())
        .await;
    assert!(changed.is_err(), "events are never changed");
}

#[tokio::test]
async fn answers_are_remembered_for_400_days_by_both_clocks_and_what_they_answer_to_for_ever() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = |key: &str| {
        let body = serde_json::json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key});
        story.client.post("/api/v1/credits/use", &body).bearer(&ada.access_token).send()
    };
    for key in ["old", "new"] {
        assert_eq!(spend(key).await.status, 201);
    }
    let answers = "SELECT count(*) FROM credits.remembered_answers";
    story.clock.advance(Duration::days(500));
    story.workers.prune().await;
    story.clock.advance(Duration::days(-500));
    assert_eq!(story.number(answers).await, 2, "a clock that is ahead");
    let age = "UPDATE credits.remembered_answers SET created_at = now() - interval '399 days' WHERE ctid = (SELECT min(ctid) FROM credits.remembered_answers)";
    story.execute(age).await;
    story.workers.prune().await;
    assert_eq!(story.number(answers).await, 2, "not yet");
    story.execute("UPDATE credits.remembered_answers SET created_at = created_at - interval '2 days' WHERE created_at < now() - interval '1 day'").await;
    story.workers.prune().await;
    assert_eq!(story.number(answers).await, 1);
    assert_eq!(spend("new").await.status, 201);
    assert_eq!(story.number("SELECT count(*) FROM credits.transactions WHERE type = 'usage'").await, 2);
    crate::credits::books_are_true(&story).await;
}

/// As many budgets of mails that are past their time as are deleted together, half as many again, and one that can't be deleted.
const BUDGETS: &str = "
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not this one''; END';
    CREATE TRIGGER refuse BEFORE DELETE ON auth.mail_budgets FOR EACH ROW WHEN (OLD.used = 7) EXECUTE FUNCTION public.refuse();
    INSERT INTO auth.mail_budgets (address_hash, template, used, began_at)
    SELECT sha256(n::text::bytea), 'x', CASE n WHEN 1501 THEN 7 ELSE 1 END, now() - interval '90 days' + n * interval '1 second'
    FROM generate_series(1, 1501) n";

#[tokio::test]
async fn what_a_batch_has_deleted_stays_deleted_when_a_later_one_fails() {
    let story = Story::new().await;
    sqlx::raw_sql(BUDGETS).execute(&mut story.database.owner().await).await.unwrap();
    story.workers.prune().await;
    let left = "SELECT count(*) FROM auth.mail_budgets WHERE template = 'x'";
    assert_eq!(story.number(left).await, 501);

    // Also where each connection is one transaction until it is given back.
    let options = story.database.service_options().statement_cache_capacity(0);
    let database = Database::new(options, 1, std::time::Duration::from_mins(1)).in_transactions_only();
    let failed = until_empty(&database, 200, |connection| {
        Box::pin(async {
            let oldest = "DELETE FROM auth.mail_budgets WHERE template = 'x' AND address_hash IN (
                SELECT address_hash FROM auth.mail_budgets WHERE template = 'x' ORDER BY began_at LIMIT 200)";
            Ok(sqlx::query(oldest).execute(connection).await?.rows_affected())
        })
    });
    failed.await.unwrap_err();
    assert_eq!(story.number(left).await, 101);
}
