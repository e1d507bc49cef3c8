//! The books go to another installation whole and true, or not at all.

use crate::credits::books_are_true;
use crate::proof::written_books;
use crate::story::{Story, User, spend_of};
use mana_credits::ledger::moving::{Counts, ImportError, export, import};
use secrecy::SecretString;
use serde_json::{Value, json};

const KEY: &str = "a-service-key-of-the-environment";

pub(crate) async fn exported(story: &Story) -> String {
    let mut file = Vec::new();
    export(&story.database.service(), &mut file, |_, _| {}).await.unwrap();
    String::from_utf8(file).unwrap()
}

pub(crate) async fn imported(story: &Story, file: &str) -> Result<Counts, ImportError> {
    import(&story.database.service(), &story.settings.credits_daily_zone, file.as_bytes(), |_, _| {}).await
}

/// Books with something of everything: beside what is in them anyway, a refund, a refusal, and metadata that is kept to the
/// byte.
async fn moving_books() -> (Story, User) {
    let (story, ada) = written_books().await;
    let spent = story.spend(&ada, &spend_of(7)).await;
    let mut refund = spend_of(3);
    refund["userId"] = json!(ada.id);
    refund["transactionId"] = spent.json["transaction"]["id"].clone();
    let app =
        story.replica_with(|settings| settings.service_key = Some(SecretString::from(KEY))).await.client;
    let refund = app.post("/api/v1/credits/refund", &refund).header("x-service-key", KEY);
    let refund = refund.header("x-app-id", "chat").send().await;
    assert_eq!(refund.status, 201, "{}", refund.json);
    let mut refused = spend_of(5_000);
    refused["idempotencyKey"] = json!("refused");
    assert_eq!(story.spend(&ada, &refused).await.status, 400);
    books_are_true(&story).await;
    (story, ada)
}

#[tokio::test]
async fn what_was_exported_imported_and_exported_again_is_the_same_to_the_byte() {
    let (story, _) = moving_books().await;
    let file = exported(&story).await;
    assert_eq!(exported(&story).await, file, "the same books are the same bytes");
    let other = Story::new().await;
    let counts = imported(&other, &file).await.unwrap();
    assert_eq!((counts.wallets, counts.transactions, counts.answers), (2, 7, 2));
    assert_eq!(exported(&other).await, file);
    books_are_true(&other).await;
    let metadata = "SELECT count(*) FROM credits.transactions WHERE metadata::text = '{\"z\":[1,\"\\u0000\"],\"a\":null}'";
    assert_eq!((story.number(metadata).await, other.number(metadata).await), (1, 1));

    // Life goes on: the next wallet has the next id, keys are good, and a first root is taken.
    other.user("carol@example.com").await;
    assert_eq!(other.number("SELECT max(wallet_id) FROM credits.balances").await, 3);
    assert_eq!(other.number("SELECT count(*) FROM credits.remembered_answers WHERE wallet_id = 1").await, 2);
    other.workers.prove_books().await;
    assert_eq!(other.number("SELECT count(*) FROM credits.roots").await, 1);
    books_are_true(&other).await;
}

#[tokio::test]
async fn metadata_that_a_reader_might_take_otherwise_are_moved_as_they_were() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = async |path: &str, metadata: &str| {
        let body = format!(r#"{{"amount": 1, "appId": "chat", "description": "A", "metadata": {metadata}}}"#);
        let request = story.client.request(http::Method::POST, path).body("application/json", body);
        let done = request.bearer(&ada.access_token).send().await;
        assert_eq!(done.status, 201, "{}", done.json);
        done
    };
    // As deep as a body may be, and as an answer may that repeats it; and a number that comes out otherwise when it is read and written.
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    spend("/api/v1/credits/holds", &deep(125)).await;
    for metadata in [deep(124).as_str(), r#"{"x":37e-23,"y":1.0,"z":1e3}"#] {
        spend("/api/v1/credits/use", metadata).await;
        let hold = spend("/api/v1/credits/holds", metadata).await;
        let capture = format!("/api/v1/credits/holds/{}/capture", hold.text("/hold/id"));
        assert_eq!(
            story.client.post(&capture, &json!({})).bearer(&ada.access_token).send().await.status,
            201
        );
    }
    let file = exported(&story).await;
    let other = Story::new().await;
    imported(&other, &file).await.unwrap();
    assert_eq!(exported(&other).await, file);
    books_are_true(&other).await;
}

#[tokio::test]
async fn times_that_older_versions_kept_finer_than_the_grants_row_has_them_are_no_lie() {
    let story = Story::with(|settings| settings.service_key = Some(SecretString::from(KEY))).await;
    let ada = story.user("ada@example.com").await;
    let gift = json!({
        "userId": ada.id, "amount": 10, "appId": "chat", "description": "A present", "expiresAt": "2127-01-01T00:00:00.123456Z",
    });
    let given = story.client.post("/api/v1/internal/credits/grants", &gift).header("x-service-key", KEY);
    assert_eq!(given.header("x-app-id", "chat").send().await.status, 201);
    story
        .execute(
            "UPDATE credits.balances SET grants = replace(grants::text, '.123456Z', '.123456789Z')::json",
        )
        .await;
    books_are_true(&story).await;
    let other = Story::new().await;
    imported(&other, &exported(&story).await).await.unwrap();
    books_are_true(&other).await;
    // Its next change puts the row right.
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 201);
    let fine = "SELECT count(*) FROM credits.balances WHERE grants::text LIKE '%.123456789Z%'";
    assert_eq!((story.number(fine).await, other.number(fine).await), (0, 1));
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_history_that_is_longer_than_what_is_read_at_once_is_moved_and_proven() {
    let story = Story::with(|settings| {
        settings.credits_signup_bonus = 2_000;
        settings.service_key = Some(SecretString::from(KEY));
    })
    .await;
    let ada = story.user("ada@example.com").await;
    let spent = story.spend(&ada, &spend_of(7)).await;
    let as_app = async |path: &str, body: &Value| {
        let request = story.client.post(path, body).header("x-service-key", KEY);
        request.header("x-app-id", "chat").send().await
    };
    let charges: Vec<Value> = (0..600)
        .map(|number| {
            let mut charge = spend_of(1);
            charge["userId"] = json!(ada.id);
            charge["idempotencyKey"] = json!(format!("k{number}"));
            charge
        })
        .collect();
    let batch = as_app("/api/v1/credits/use/batch", &json!({ "commands": charges })).await;
    assert!(batch.status.is_success(), "{}", batch.json);
    let mut refund = spend_of(3);
    refund["userId"] = json!(ada.id);
    refund["transactionId"] = spent.json["transaction"]["id"].clone();
    assert_eq!(as_app("/api/v1/credits/refund", &refund).await.status, 201);

    let file = exported(&story).await;
    let other = Story::new().await;
    let lie = edited(&file, |lines| line_of(lines, 603)["amount"] = json!(4));
    let refusal = imported(&other, &lie).await.unwrap_err();
    assert!(matches!(&refusal, ImportError::Lie(finding) if finding.sequence == Some(603)), "{refusal}");
    let counts = imported(&other, &file).await.unwrap();
    assert_eq!((counts.transactions, counts.answers), (603, 600));
    assert_eq!(exported(&other).await, file);
    books_are_true(&other).await;
}

#[tokio::test]
async fn an_empty_ledger_can_be_moved_and_one_with_wallets_takes_no_import() {
    let (empty, other) = (Story::new().await, Story::new().await);
    let file = exported(&empty).await;
    assert_eq!(imported(&other, &file).await.unwrap(), Counts::default());
    other.user("ada@example.com").await;
    let refusal = imported(&other, &file).await.unwrap_err();
    assert!(matches!(refusal, ImportError::NotEmpty), "{refusal}");
}

/// A change of some lines of an export; the lines are values, in their order.
type Edit = fn(&mut Vec<Value>);

fn edited(file: &str, edit: Edit) -> String {
    let mut lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    edit(&mut lines);
    lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

/// Where the row of a sort is that is the first of its kind.
fn first<'a>(lines: &'a mut [Value], sort: &str) -> &'a mut Value {
    lines.iter_mut().find_map(|line| line.get_mut(sort)).unwrap()
}

/// The line of the first wallet's history with this sequence.
fn line_of(lines: &mut [Value], sequence: i64) -> &mut Value {
    let mut rows = lines.iter_mut().filter_map(|line| line.get_mut("transaction"));
    rows.find(|row| row["walletId"] == 1 && row["sequence"] == sequence).unwrap()
}

#[tokio::test]
async fn a_lie_in_an_export_is_refused_with_its_wallet_and_line_and_leaves_nothing() {
    let (story, ada) = moving_books().await;
    let file = exported(&story).await;
    let other = Story::new().await;
    assert_eq!(edited(&file, |_| {}), file, "the control: what is not edited stays the same");
    let edits: [(&str, Option<i64>, Edit); 9] = [
        ("one amount", Some(2), |lines| line_of(lines, 2)["amount"] = json!(-29)),
        ("one hash", Some(2), |lines| line_of(lines, 2)["hash"] = json!("00".repeat(32))),
        ("one text", Some(2), |lines| line_of(lines, 2)["description"] = json!("Another answer")),
        ("a space in metadata", Some(2), |lines| {
            let text = line_of(lines, 2)["metadata"].as_str().unwrap().replace(',', ", ");
            line_of(lines, 2)["metadata"] = json!(text);
        }),
        ("a missing line", Some(3), |lines| lines.retain(|line| line["transaction"]["sequence"] != 2)),
        ("more left", None, |lines| first(lines, "wallet")["free"] = json!(1_000)),
        ("a missing hold", Some(3), |lines| lines.retain(|line| line["hold"]["status"] != "captured")),
        ("missing usage", None, |lines| lines.retain(|line| line.get("usage").is_none())),
        ("wallets that changed places", Some(1), |lines| {
            let swap = |id: &Value| json!(if *id == 1 { 2 } else { 1 });
            for row in lines.iter_mut().filter_map(|line| line.as_object_mut()?.values_mut().next()) {
                if let Some(id) = row.get_mut("walletId") {
                    *id = swap(id);
                }
            }
        }),
    ];
    for (what, sequence, edit) in edits {
        let refusal = imported(&other, &edited(&file, edit)).await.unwrap_err();
        let ImportError::Lie(finding) = &refusal else { panic!("{what}: {refusal:?}") };
        assert_eq!((finding.user.as_ref(), finding.sequence), (Some(&ada.id), sequence), "{what}: {refusal}");
        assert_eq!(other.number("SELECT count(*) FROM credits.balances").await, 0, "{what}");
    }
    imported(&other, &file).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_written_is_refused_by_name() {
    let (story, _) = moving_books().await;
    let file = exported(&story).await;
    let other = Story::new().await;
    let refused = async |file: &str| imported(&other, file).await.unwrap_err();

    let edits: [(&str, Edit); 5] = [
        ("an answer", |lines| first(lines, "answer")["status"] = json!(200)),
        ("users that swapped wallets", |lines| {
            let mut users = lines.iter_mut().filter_map(|line| Some(&mut line.get_mut("wallet")?["userId"]));
            let (ada, bob) = (users.next().unwrap(), users.next().unwrap());
            std::mem::swap(ada, bob);
        }),
        ("a missing answer", |lines| {
            let place = lines.iter().position(|line| line.get("answer").is_some()).unwrap();
            lines.remove(place);
        }),
        ("a missing wallet", |lines| {
            lines.retain(|line| line.as_object().unwrap().values().all(|row| row["walletId"] != 2));
        }),
        ("something more", |lines| lines.push(lines[0].clone())),
    ];
    for (what, edit) in edits {
        let refusal = refused(&edited(&file, edit)).await;
        assert!(matches!(refusal, ImportError::Changed(_)), "{what}: {refusal:?}");
    }

    let refusal = refused(&edited(&file, |lines| lines.swap(1, 2))).await;
    assert!(matches!(refusal, ImportError::Misplaced("grant", 1)), "{refusal:?}");
    let refusal = refused(&edited(&file, |lines| lines[0]["version"] = json!(2))).await;
    assert!(matches!(refusal, ImportError::UnknownVersion(2)), "{refusal:?}");
    let refusal = refused(&edited(&file, |lines| lines[1]["wallet"]["more"] = json!(true))).await;
    assert!(matches!(refusal, ImportError::Broken(2, _)), "{refusal:?}");
    for text in ["{}\n", "PGDMP\n", "{\"format\":\"another\",\"version\":1}\n"] {
        let refusal = refused(text).await;
        assert!(matches!(refusal, ImportError::NoExport), "{text}: {refusal:?}");
    }
    let ends = file.match_indices('\n').map(|(place, _)| place);
    for end in ends.flat_map(|end| [end, end.saturating_sub(9)]).chain([0]) {
        let refusal = refused(&file[..end]).await;
        assert!(matches!(refusal, ImportError::Truncated(_)), "cut off at {end}: {refusal:?}");
    }
    assert_eq!(other.number("SELECT count(*) FROM credits.balances").await, 0);
    imported(&other, &file).await.unwrap();
}
