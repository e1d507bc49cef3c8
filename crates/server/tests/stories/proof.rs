//! Who edits the books by hand is found, with the wallet and the line that it is about.

use crate::credits::books_are_true;
use crate::story::{Story, User, spend_of};
use mana_credits::ledger::root::go_on;
use mana_credits::ledger::verify::{Finding, Report, Scope, verify};
use mana_kernel::Clock as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::time::Duration;

/// Two wallets that a root covers; in the first, lines 1 to 3 are the bonus, a spend and a capture, and a hold is open.
pub(crate) async fn written_books() -> (Story, User) {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let bob = story.user("bob@example.com").await;
    assert_eq!(story.spend(&bob, &spend_of(5)).await.status, 201);
    let mut body = spend_of(30);
    body["metadata"] = json!({"z": [1, "\u{0}"], "a": null});
    body["idempotencyKey"] = json!("k");
    assert_eq!(story.spend(&ada, &body).await.status, 201);
    let hold = |amount: i64| {
        story.client.post("/api/v1/credits/holds", &spend_of(amount)).bearer(&ada.access_token).send()
    };
    let captured = hold(10).await;
    story.clock.advance(time::Duration::SECOND);
    let path = format!("/api/v1/credits/holds/{}/capture", captured.text("/hold/id"));
    let capture = story.client.post(&path, &json!({"amount": 4})).bearer(&ada.access_token).send().await;
    assert_eq!(capture.status, 201, "{}", capture.json);
    assert_eq!(hold(20).await.status, 201);
    story.workers.prove_books().await;
    (story, ada)
}

async fn proof(story: &Story) -> Report {
    let scope = Scope { since: None, daily_zone: "UTC" };
    verify(&story.database.service(), scope, |_| {}).await.unwrap()
}

#[tokio::test]
async fn true_books_are_found_true_however_the_database_joins() {
    let (story, ada) = written_books().await;
    for spend in 0..20 {
        let mut body = spend_of(1);
        body["idempotencyKey"] = json!(format!("spend-{spend}"));
        assert_eq!(story.spend(&ada, &body).await.status, 201);
    }
    let mut owner = story.database.owner().await;
    for ways in [
        ["nestloop", "hashjoin"],
        ["nestloop", "mergejoin"],
        ["hashjoin", "mergejoin"],
        ["sort", "indexscan"],
    ] {
        let switch = |to: &str| {
            let set = |way: &str| {
                format!(
                    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_{way} = {to}', current_database()); END $$;"
                )
            };
            ways.map(set).concat()
        };
        sqlx::raw_sql(AssertSqlSafe(switch("off"))).execute(&mut owner).await.unwrap();
        let report = proof(&story).await;
        assert!(report.is_true() && report.lines > 20, "without {ways:?}: {report:?}");
        sqlx::raw_sql(AssertSqlSafe(switch("on"))).execute(&mut owner).await.unwrap();
    }
}

/// Edits rows as nobody may but who owns the machine.
async fn edit(story: &Story, sql: &str) {
    let script = format!("SET session_replication_role = replica; {sql}");
    let mut owner = story.database.owner().await;
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut owner).await.unwrap();
}

const TABLES: [&str; 8] =
    ["balances", "transactions", "grants", "holds", "usage_stats", "remembered_answers", "roots", "anchors"];

/// Books that are true again after each edit.
struct Kept {
    story: Story,
    ada: User,
}

impl Kept {
    async fn new() -> Self {
        let (story, ada) = written_books().await;
        let keep = TABLES.map(|table| format!("CREATE TABLE public.kept_{table} AS TABLE credits.{table};"));
        edit(&story, &keep.concat()).await;
        Self { story, ada }
    }

    /// What is found after an edit, of books in which nothing was found before.
    async fn found_after(&self, sql: &str) -> Vec<Finding> {
        books_are_true(&self.story).await;
        edit(&self.story, sql).await;
        let findings = proof(&self.story).await.findings;
        let restore = TABLES.map(|table| {
            format!("DELETE FROM credits.{table}; INSERT INTO credits.{table} OVERRIDING SYSTEM VALUE TABLE public.kept_{table};")
        });
        edit(&self.story, &restore.concat()).await;
        findings
    }
}

fn names(findings: &[Finding], user: &User, sequence: Option<i64>, invariant: u8) -> bool {
    findings.iter().any(|finding| {
        finding.wallet == Some(1)
            && finding.user.as_ref() == Some(&user.id)
            && finding.sequence == sequence
            && finding.invariant == invariant
    })
}

#[tokio::test]
async fn an_edited_line_is_found_whatever_was_edited() {
    let kept = Kept::new().await;
    for change in [
        "amount = -29",
        "balance_after = 121",
        "description = 'Another answer'",
        "app_id = 'other'",
        "metadata = '{\"z\":[1]}'",
        "idempotency_key = 'j'",
        "counter = 'bonus'",
        "slice_amounts = '{-29}'",
        "created_at = created_at + interval '1 microsecond'",
        "id = gen_random_uuid()",
        "service_key_id = 'somebody'",
        "hash = sha256('x')",
    ] {
        let sql = format!("UPDATE credits.transactions SET {change} WHERE wallet_id = 1 AND sequence = 2");
        let findings = kept.found_after(&sql).await;
        assert!(names(&findings, &kept.ada, Some(2), 5), "{change}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.wallet != Some(2)), "{change}: {findings:?}");
    }
}

#[tokio::test]
async fn a_line_that_is_gone_or_added_is_found() {
    let kept = Kept::new().await;
    let findings =
        kept.found_after("DELETE FROM credits.transactions WHERE wallet_id = 1 AND sequence = 2").await;
    assert!(names(&findings, &kept.ada, Some(3), 4), "{findings:?}");
    let findings =
        kept.found_after("DELETE FROM credits.transactions WHERE wallet_id = 1 AND sequence = 3").await;
    assert!(names(&findings, &kept.ada, None, 4), "{findings:?}");
    let findings = kept.found_after(
        "INSERT INTO credits.transactions (wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants, slice_amounts, app_id,
             description, created_at, hash)
         SELECT wallet_id, 4, gen_random_uuid(), 'bonus', 5, 121, 'bonus', '{1}', '{5}', 'system', 'Daily free credits', now(), head
         FROM credits.balances WHERE wallet_id = 1",
    )
    .await;
    assert!(names(&findings, &kept.ada, Some(4), 5), "{findings:?}");
}

#[tokio::test]
async fn an_edited_wallet_is_found() {
    let kept = Kept::new().await;
    for (change, invariant) in [
        ("free = free + 1", 8),
        ("paid = 1", 8),
        ("held = held - 1", 15),
        ("total_spent = 0", 3),
        ("total_earned = 1", 3),
        ("head = sha256('x')", 5),
        ("sequence = 2", 4),
        ("grants = replace(grants::text, '\"remaining\":96', '\"remaining\":97')::json", 9),
        ("grants = '[]'", 8),
        ("grants = '{}'", 8),
        ("grants = replace(grants::text, 'allowance', 'purchase')::json", 8),
        ("holds = '[]'", 15),
        ("holds = replace(holds::text, '\"amount\":20', '\"amount\":19')::json", 15),
    ] {
        let sql = format!("UPDATE credits.balances SET {change} WHERE wallet_id = 1");
        let findings = kept.found_after(&sql).await;
        assert!(names(&findings, &kept.ada, None, invariant), "{change}: {findings:?}");
    }
}

#[tokio::test]
async fn edited_holds_grants_and_statistics_are_found() {
    let kept = Kept::new().await;
    for (sql, sequence, invariant) in [
        ("UPDATE credits.holds SET amount = 19 WHERE status = 'open'", None, 15),
        ("UPDATE credits.holds SET amount = 19, slice_amounts = '{19}' WHERE status = 'open'", None, 15),
        ("UPDATE credits.holds SET status = 'released', ended_at = now() WHERE status = 'open'", None, 15),
        ("UPDATE credits.holds SET captured = 5 WHERE status = 'captured'", Some(3), 14),
        ("UPDATE credits.holds SET capture_sequence = 2 WHERE status = 'captured'", Some(3), 13),
        ("UPDATE credits.holds SET ended_at = expires_at WHERE status = 'captured'", None, 16),
        ("DELETE FROM credits.holds WHERE status = 'captured'", Some(3), 13),
        ("UPDATE credits.grants SET priority = 1 WHERE wallet_id = 1", None, 8),
        ("DELETE FROM credits.grants WHERE wallet_id = 1", Some(1), 8),
        ("UPDATE credits.usage_stats SET spent = spent + 1 WHERE wallet_id = 1", None, 3),
        ("UPDATE credits.usage_stats SET app_id = 'other'", None, 3),
        ("DELETE FROM credits.usage_stats", None, 3),
        // Its terms, alike in both places.
        (
            "UPDATE credits.grants SET expires_at = now() + interval '1 day' WHERE wallet_id = 1;
             UPDATE credits.balances SET grants = jsonb_set(grants::jsonb, '{0,expiresAt}', (
                 SELECT to_jsonb(to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')) FROM credits.grants WHERE wallet_id = 1))
             WHERE wallet_id = 1",
            Some(1),
            5,
        ),
        ("UPDATE credits.remembered_answers SET status = 400", Some(2), 17),
        ("UPDATE credits.remembered_answers SET body = replace(body, '\"amount\":-', '\"amount\":-1')", Some(2), 17),
        ("UPDATE credits.remembered_answers SET body = replace(body, '\"balanceAfter\":1', '\"balanceAfter\":2')", Some(2), 17),
        ("UPDATE credits.remembered_answers SET body = '{}'", Some(2), 17),
    ] {
        let findings = kept.found_after(sql).await;
        assert!(names(&findings, &kept.ada, sequence, invariant), "{sql}: {findings:?}");
    }
}

#[tokio::test]
async fn what_a_vanished_wallet_left_behind_is_found() {
    let kept = Kept::new().await;
    let findings = kept.found_after("DELETE FROM credits.balances WHERE wallet_id = 1").await;
    for relation in ["transactions", "grants", "holds", "usage_stats", "remembered_answers", "anchors"] {
        assert!(
            findings.iter().any(|finding| finding.wallet == Some(1) && finding.sentence.contains(relation)),
            "{relation}: {findings:?}"
        );
    }
}

#[tokio::test]
async fn since_a_time_only_wallets_that_changed_are_read() {
    let (story, ada) = written_books().await;
    let all = proof(&story).await;
    assert_eq!((all.wallets, all.lines), (2, 5));
    story.clock.advance(time::Duration::minutes(1));
    let since = mana_kernel::Clock::now(&*story.clock);
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);
    let scope = Scope { since: Some(since), daily_zone: "UTC" };
    let changed = verify(&story.database.service(), scope, |_| {}).await.unwrap();
    assert_eq!((changed.wallets, changed.lines, changed.is_true()), (1, 4, true));
}

/// Leaves books in which everything fits: the second wallet's spend never was.
const REWIND: &str = "DELETE FROM credits.transactions WHERE wallet_id = 2 AND sequence = 2;
    DELETE FROM credits.usage_stats WHERE wallet_id = 2;
    UPDATE credits.balances SET sequence = 1, free = 150, total_spent = 0, grants = replace(grants::text, '145', '150')::json,
        head = (SELECT hash FROM credits.transactions WHERE wallet_id = 2 AND sequence = 1) WHERE wallet_id = 2;";

#[tokio::test]
async fn a_rewound_wallet_is_found_by_the_root_that_covers_it() {
    let kept = Kept::new().await;
    let findings = kept.found_after(REWIND).await;
    let [gone] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((gone.wallet, gone.sequence, gone.invariant), (Some(2), Some(2), 4));
    let without_roots = format!("{REWIND} DELETE FROM credits.anchors; DELETE FROM credits.roots;");
    assert_eq!(kept.found_after(&without_roots).await, [], "the control: nothing else shows it");
}

#[tokio::test]
async fn edited_roots_and_anchors_are_found() {
    let kept = Kept::new().await;
    for sql in [
        "UPDATE credits.roots SET tree = sha256('x')",
        "UPDATE credits.roots SET created_at = created_at - interval '1 hour'",
        "UPDATE credits.roots SET id = 2",
        "DELETE FROM credits.roots",
        "UPDATE credits.anchors SET head = sha256('x') WHERE wallet_id = 1",
        "UPDATE credits.anchors SET sequence = 1 WHERE wallet_id = 1",
        "DELETE FROM credits.anchors WHERE wallet_id = 1",
    ] {
        let findings = kept.found_after(sql).await;
        assert!(
            findings.iter().any(|finding| finding.wallet.is_none() && finding.invariant == 5),
            "{sql}: {findings:?}"
        );
    }
}

#[tokio::test]
async fn a_root_is_taken_once_an_hour_and_never_over_a_lie() {
    let (story, ada) = written_books().await;
    let roots = "SELECT count(*) FROM credits.roots";
    assert_eq!(story.number(roots).await, 1);
    let replica = story.replica_with(|_| {}).await;
    tokio::join!(story.workers.prove_books(), replica.workers.prove_books());
    assert_eq!(story.number(roots).await, 1, "not yet");
    story.clock.advance(time::Duration::HOUR);
    let ada = story.sign_in(&ada.email).await;
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);
    tokio::join!(story.workers.prove_books(), replica.workers.prove_books());
    assert_eq!(story.number(roots).await, 2);
    books_are_true(&story).await;
    let last_line = "SELECT sequence FROM credits.anchors WHERE wallet_id = 1 AND root_id = 2";
    assert_eq!(story.number(last_line).await, 4);

    story.clock.advance(time::Duration::HOUR);
    let ada = story.sign_in(&ada.email).await;
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);
    edit(&story, "UPDATE credits.transactions SET amount = -2 WHERE wallet_id = 1 AND sequence = 5").await;
    story.workers.prove_books().await;
    assert_eq!(story.number(roots).await, 2);
    edit(&story, "UPDATE credits.transactions SET amount = -1 WHERE wallet_id = 1 AND sequence = 5").await;
    story.workers.prove_books().await;
    assert_eq!(story.number(roots).await, 3);
}

/// What the pass that comes an hour later counts: findings, and when all wallets were last found true.
async fn counted_an_hour_later(story: &Story) -> (f64, f64) {
    story.clock.advance(time::Duration::HOUR);
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = metrics::set_default_local_recorder(&recorder);
    story.workers.prove_books().await;
    drop(counted);
    let counted = recorder.handle().render();
    let number = |name: &str| {
        let line = counted.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {counted}")).parse().unwrap()
    };
    (number("ledger_verify_findings"), number("ledger_verify_all_last_success_timestamp_seconds"))
}

#[tokio::test]
async fn the_hourly_pass_finds_what_was_done_to_wallets_that_rest_until_it_is_put_right() {
    let story_of = Kept::new().await;
    let story = &story_of.story;
    let now = || f64::from(i32::try_from(story.clock.now().unix_timestamp()).unwrap());
    // From the second on, no wallet has changed since the last root.
    for _ in 0..2 {
        assert_eq!(counted_an_hour_later(story).await, (0.0, now()));
    }
    for lie in [
        "UPDATE credits.transactions SET description = 'Another answer' WHERE wallet_id = 1 AND sequence = 2",
        "DELETE FROM credits.balances WHERE wallet_id = 2",
        REWIND,
        "DELETE FROM credits.anchors WHERE wallet_id = 1",
    ] {
        let (proven, roots) = (now(), story.number("SELECT count(*) FROM credits.roots").await);
        edit(story, lie).await;
        for _ in 0..2 {
            let (findings, all_proven) = counted_an_hour_later(story).await;
            assert!(findings >= 1.0 && all_proven <= proven, "{lie}: {findings} {all_proven}");
        }
        assert_eq!(story.number("SELECT count(*) FROM credits.roots").await, roots, "{lie}");
        let restore = ["balances", "transactions", "usage_stats"].map(|table| {
            format!("DELETE FROM credits.{table}; INSERT INTO credits.{table} OVERRIDING SYSTEM VALUE TABLE public.kept_{table};")
        });
        let anchors = "INSERT INTO credits.anchors TABLE public.kept_anchors ON CONFLICT DO NOTHING;";
        edit(story, &format!("{} {anchors}", restore.concat())).await;
        // What was read before the lie is true as of then.
        let (findings, all_proven) = counted_an_hour_later(story).await;
        assert!(findings == 0.0 && all_proven >= proven, "{lie}: {findings} {all_proven}");
        assert_eq!(counted_an_hour_later(story).await, (0.0, now()), "{lie}");
    }
}

#[tokio::test]
async fn all_wallets_are_gone_through_part_by_part_and_a_lie_is_not_passed_by() {
    let (story, _ada) = written_books().await;
    edit(
        &story,
        "INSERT INTO credits.balances (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
         SELECT 'empty-' || number, 0, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'), '2026-01-01', now(), now() FROM generate_series(1, 700) number",
    )
    .await;
    let database = story.database.service();
    // A chunk, as if there was time for no more.
    let part = async || {
        story.clock.advance(time::Duration::MINUTE);
        go_on(&database, "UTC", Duration::ZERO, story.clock.now()).await.unwrap()
    };
    let proven = "SELECT floor(extract(epoch FROM proven_at))::bigint FROM credits.verify_rounds";
    let before = story.number(proven).await;
    let parts = [part().await, part().await];
    assert_eq!(parts.map(|report| (report.wallets, report.found)), [(500, 0), (202, 0)]);
    assert_eq!(story.number(proven).await, before, "not yet: the end has not been reached");
    let begun = story.clock.now().unix_timestamp() - 60;
    assert_eq!((part().await.wallets, story.number(proven).await), (0, begun), "as of when it began");

    assert_eq!(part().await.wallets, 500);
    edit(&story, "UPDATE credits.balances SET free = 1 WHERE wallet_id = 600").await;
    for _ in 0..3 {
        let report = part().await;
        assert_eq!((report.wallets, report.found), (202, 2), "{report:?}");
    }
    assert_eq!(story.number(proven).await, begun);
    edit(&story, "UPDATE credits.balances SET free = 0 WHERE wallet_id = 600").await;
    assert!(part().await.is_true() && part().await.is_true());
    assert!(story.number(proven).await > begun);
}
