//! Accounts out of a file, and into one.

use crate::credits::books_are_true;
use crate::story::{PASSWORD, Story};
use mana_auth::account::moving::{Counts, Format, Lines, Row, Step, Target, export, import, read};
use mana_auth::bonus::SignupBonus;
use mana_kernel::Clock as _;
use mana_platform::SystemRng;
use serde_json::{Value, json};
use std::io;
use time::Duration;
use time::format_description::well_known::Rfc3339;

const BCRYPT: &str = "$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme";
const ACCOUNTS: &str = "SELECT count(*) FROM auth.users";

/// How an import is made.
#[derive(Default)]
struct How {
    is_dry: bool,
    with_bonus: bool,
    keeps_roles: bool,
}

/// What came of it: the counts, or why it stopped, and the rows that were refused.
async fn import_lines(
    story: &Story,
    lines: Lines<'_>,
    how: How,
) -> (Result<Counts, String>, Vec<(u64, String)>) {
    let database = story.database.service();
    let target = Target {
        database: &database,
        clock: &*story.clock,
        rng: &SystemRng,
        on_user_registered: &*story.workers.auth.on_user_registered,
        bonus: if how.with_bonus { SignupBonus::Given } else { SignupBonus::Withheld },
        keeps_roles: how.keeps_roles,
        is_dry: how.is_dry,
    };
    let mut refused = Vec::new();
    let outcome = import(&target, lines, |step| {
        if let Step::Refused(row) = step {
            refused.push((row.line, row.reason.clone()));
        }
    });
    (outcome.await.map_err(|error| error.to_string()), refused)
}

async fn import_text(story: &Story, text: &str, format: Format, how: How) -> (Counts, Vec<(u64, String)>) {
    let (counts, refused) = import_lines(story, read(text.as_bytes(), format), how).await;
    (counts.unwrap(), refused)
}

async fn import_json(story: &Story, rows: &[Value]) -> (Counts, Vec<(u64, String)>) {
    import_text(story, &json_lines(rows), Format::JsonLines, How::default()).await
}

fn json_lines(rows: &[Value]) -> String {
    rows.iter().fold(String::new(), |text, row| format!("{text}{row}\n"))
}

async fn exported(story: &Story, with_hashes: bool) -> String {
    let mut file = Vec::new();
    export(&story.database.service(), &mut file, with_hashes, |_, _| {}).await.unwrap();
    String::from_utf8(file).unwrap()
}

fn numbers(counts: &Counts) -> [u64; 4] {
    [counts.rows, counts.imported, counts.present, counts.refused]
}

#[tokio::test]
async fn an_imported_account_keeps_its_id_and_signs_in_with_its_password() {
    let story = Story::new().await;
    let row = json!({
        "id": "clx7Ab_old-1", "email": "Ada@Example.com", "emailVerified": true, "name": "Ada", "image": "https://example.com/a.png",
        "createdAt": "2024-02-03T04:05:06Z", "passwordHash": BCRYPT
    });
    let (counts, refused) = import_json(&story, &[row, json!({"email": "nobody@example.com"})]).await;
    assert_eq!((numbers(&counts), refused), ([2, 2, 0, 0], vec![]));
    let ada = story.sign_in("ada@example.com").await;
    assert_eq!(
        story.get("/api/v1/auth/me", &ada).await.json,
        json!({
            "id": "clx7Ab_old-1", "email": "ada@example.com", "name": "Ada", "role": "user", "emailVerified": true,
            "image": "https://example.com/a.png", "createdAt": "2024-02-03T04:05:06Z"
        })
    );
    let balance = story.get("/api/v1/credits/balance", &ada).await;
    assert_eq!(
        (balance.status.as_u16(), balance.integer("/freeCreditsRemaining")),
        (200, 0),
        "a wallet without a bonus"
    );
    assert_eq!(story.number("SELECT count(*) FROM auth.security_events WHERE type = 'imported'").await, 2);
    assert_eq!(
        story.login("nobody@example.com").await.status,
        401,
        "without a password nobody signs in by one"
    );
    assert_eq!(story.register("ada@example.com").await.status, 409);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_table_of_another_program_is_imported_as_it_is() {
    let story = Story::new().await;
    let text = format!(
        "id,email,email_verified,name,created_at,password_hash\nu1,a@example.com,t,\"Love, Ada\",2024-02-03T04:05:06Z,{BCRYPT}\n,b@example.com,f,,,\n"
    );
    let (counts, refused) = import_text(&story, &text, Format::Csv, How::default()).await;
    assert_eq!((numbers(&counts), refused), ([2, 2, 0, 0], vec![]));
    let ada = story.sign_in("a@example.com").await;
    assert_eq!(
        (ada.id.as_str(), story.get("/api/v1/auth/me", &ada).await.text("/name")),
        ("u1", "Love, Ada")
    );
}

#[tokio::test]
async fn every_row_that_does_not_fit_is_refused_with_its_line_and_the_reason_and_the_others_are_imported() {
    let story = Story::new().await;
    story.register("taken@example.com").await;
    let tomorrow = story.clock.now().saturating_add(Duration::days(1)).format(&Rfc3339).unwrap();
    let bad = [
        (json!({"email": "no address"}), "email must be an e-mail address"),
        (json!({"email": "\u{212a}ate@example.com"}), "other forms of plain letters"),
        (json!({"id": "not an id", "email": "a@example.com"}), "id must be 1 to 64"),
        (json!({"id": "other", "email": "taken@example.com"}), "email is that of another account"),
        (json!({"email": "first@example.com"}), "email is that of line 1"),
        (json!({"id": "first", "email": "a@example.com"}), "id is that of line 1"),
        (json!({"email": "a@example.com", "name": "two\nlines"}), "name must"),
        (json!({"email": "a@example.com", "image": "javascript:alert(1)"}), "image must be an http"),
        (json!({"email": "a@example.com", "createdAt": "yesterday"}), "createdAt must be a time"),
        (json!({"email": "a@example.com", "createdAt": tomorrow}), "must not be in the future"),
        (json!({"email": "a@example.com", "role": "admin"}), "--keep-roles"),
        (json!({"email": "a@example.com", "role": "root"}), "role must be"),
        (json!({"email": "a@example.com", "password": "in clear"}), "unknown field `password`"),
        (
            json!({"email": "a@example.com", "passwordHash": "5f4dcc3b5aa765d61d8327deb882cf99"}),
            "is no hash of bcrypt",
        ),
        (json!({"email": "a@example.com", "passwordHash": BCRYPT.replace("$04$", "$31$")}), "costs more"),
        (json!({"email": 7}), "expected a string"),
        (json!([]), "invalid length"),
    ];
    let rows: Vec<_> = std::iter::once(json!({"id": "first", "email": "first@example.com"}))
        .chain(bad.iter().map(|(row, _)| row.clone()))
        .chain([json!({"email": "last@example.com"})])
        .collect();
    let (counts, mut refused) = import_json(&story, &rows).await;
    refused.sort();
    assert_eq!(numbers(&counts), [19, 2, 0, 17], "{refused:?}");
    for ((line, reason), (number, (row, expected))) in refused.iter().zip((2..).zip(&bad)) {
        assert_eq!(*line, number, "{reason}");
        assert!(reason.contains(expected), "{row}: {reason}");
        assert!(!reason.contains("in clear"), "{reason}");
    }
    assert_eq!(story.number(ACCOUNTS).await, 3);
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let story = Story::new().await;
    let rows = [
        json!({"id": "u1", "email": "a@example.com", "passwordHash": BCRYPT}),
        json!({"email": "b@example.com"}),
    ];
    import_json(&story, &rows).await;
    story.sign_in("a@example.com").await;
    let before = exported(&story, true).await;
    let (counts, refused) = import_json(&story, &rows).await;
    assert_eq!((numbers(&counts), refused), ([2, 0, 2, 0], vec![]));
    assert_eq!(exported(&story, true).await, before, "also the newer hash of the password stays");
    let (_, refused) = import_json(&story, &[json!({"id": "u1", "email": "c@example.com"})]).await;
    assert!(refused[0].1.contains("another address"), "{refused:?}");
}

#[tokio::test]
async fn an_import_that_was_cut_off_is_gone_on_with() {
    let story = Story::new().await;
    let rows: Vec<_> = (0..500)
        .map(|number| json!({"id": format!("u{number}"), "email": format!("u{number}@example.com")}))
        .collect();
    let text = json_lines(&rows);
    let whole = || read(text.as_bytes(), Format::JsonLines);
    let cut: Lines<'_> = Box::new(whole().take(450).chain([Err(io::Error::other("the disk is gone"))]));
    let (outcome, _) = import_lines(&story, cut, How::default()).await;
    assert!(outcome.unwrap_err().contains("start again to go on"));
    assert_eq!(story.number(ACCOUNTS).await, 400, "whole batches");
    assert_eq!(story.number("SELECT count(*) FROM credits.balances").await, 400);
    let (counts, refused) = import_lines(&story, whole(), How::default()).await;
    assert_eq!((numbers(&counts.unwrap()), refused), ([500, 100, 400, 0], vec![]));
    assert_eq!(story.number("SELECT count(*) FROM credits.balances").await, 500);
}

#[tokio::test]
async fn a_dry_run_finds_what_an_import_would_and_keeps_nothing() {
    let story = Story::new().await;
    story.register("taken@example.com").await;
    let rows = [
        json!({"id": "u1", "email": "a@example.com", "passwordHash": BCRYPT}),
        json!({"id": "u2", "email": "taken@example.com"}),
        json!({"email": "nonsense"}),
    ];
    let how = || How { is_dry: true, with_bonus: true, ..How::default() };
    let (counts, dry) = import_text(&story, &json_lines(&rows), Format::JsonLines, how()).await;
    assert_eq!(numbers(&counts), [3, 1, 0, 2]);
    for (table, rows) in [
        (ACCOUNTS, 1),
        ("SELECT count(*) FROM auth.passwords", 1),
        ("SELECT count(*) FROM auth.imported_passwords", 0),
        ("SELECT count(*) FROM credits.balances", 1),
        ("SELECT count(*) FROM credits.transactions", 1),
        ("SELECT count(*) FROM auth.security_events WHERE type = 'imported'", 0),
    ] {
        assert_eq!(story.number(table).await, rows, "{table}");
    }
    let (counts, real) = import_json(&story, &rows).await;
    assert_eq!(numbers(&counts), [3, 1, 0, 2]);
    assert_eq!(real, dry);
}

#[tokio::test]
async fn roles_and_the_bonus_come_when_they_are_asked_for() {
    let story = Story::new().await;
    let rows = [
        json!({"email": "admin@example.com", "role": "admin", "passwordHash": BCRYPT}),
        json!({"email": "gone@example.com", "disabledAt": "2024-02-03T04:05:06Z", "passwordHash": BCRYPT}),
    ];
    let how = How { with_bonus: true, keeps_roles: true, is_dry: false };
    let (counts, refused) = import_text(&story, &json_lines(&rows), Format::JsonLines, how).await;
    assert_eq!((numbers(&counts), refused), ([2, 2, 0, 0], vec![]));
    let admin = story.sign_in("admin@example.com").await;
    assert_eq!(story.get("/api/v1/auth/me", &admin).await.text("/role"), "admin");
    assert_eq!(story.get("/api/v1/credits/balance", &admin).await.integer("/freeCreditsRemaining"), 150);
    assert_eq!(story.login("gone@example.com").await.problem(), "auth.account_disabled");
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_ninth_kind_of_hash_is_refused_because_each_one_makes_failed_sign_ins_dearer() {
    let story = Story::new().await;
    let hash = |kind: u32| {
        format!("pbkdf2_sha256${}$somesalt$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA=", 1000 + kind)
    };
    let row = |kind: u32, of: u32| json!({"email": format!("u{kind}-{of}@example.com"), "passwordHash": hash(kind)});
    let rows: Vec<_> = (0..10).map(|kind| row(kind, 0)).chain([row(3, 1)]).collect();
    let (counts, refused) = import_json(&story, &rows).await;
    assert_eq!(numbers(&counts), [11, 9, 0, 2]);
    assert!(refused.iter().all(|(_, reason)| reason.contains("9th kind")), "{refused:?}");
    let (counts, _) = import_json(&story, &[row(9, 2), row(0, 2)]).await;
    assert_eq!(numbers(&counts), [2, 1, 0, 1], "also in another run");
}

#[tokio::test]
async fn what_was_exported_with_its_hashes_is_imported_elsewhere_and_everybody_signs_in() {
    let (story, other) = (Story::new().await, Story::new().await);
    story.user("a@example.com").await;
    let foreign = json!({"id": "old-1", "email": "b@example.com", "name": "B", "passwordHash": BCRYPT});
    import_json(&story, &[foreign]).await;
    let (file, bare) = (exported(&story, true).await, exported(&story, false).await);
    assert!(
        !bare.contains("passwordHash") && !bare.contains("$argon2id$") && !bare.contains("$2b$"),
        "{bare}"
    );
    let rows: Vec<Row> = bare.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);

    let (counts, refused) = import_text(&other, &file, Format::JsonLines, How::default()).await;
    assert_eq!((numbers(&counts), refused), ([2, 2, 0, 0], vec![]));
    assert_eq!(exported(&other, true).await, file);
    assert_eq!(other.number("SELECT count(*) FROM auth.imported_passwords").await, 1, "ours needs no care");
    for email in ["a@example.com", "b@example.com"] {
        assert_eq!(other.login(email).await.status, 200, "{email}");
    }
    assert_eq!(PASSWORD, "correct horse battery", "which all of these hashes are of");
}
