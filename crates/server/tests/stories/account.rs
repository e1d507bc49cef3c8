//! The account in its owner's hands: profile, password, everything that is kept of it, and its end.

use crate::credits::books_are_true;
use crate::story::{PASSWORD, Story, User, about, spend_of};
use crate::two_factor;
use futures_util::future::join_all;
use http::Method;
use mana_testkit::Reply;
use serde_json::{Value, json};
use time::Duration;

const NEW_PASSWORD: &str = "another horse battery";

async fn bearer_post(story: &Story, user: &User, path: &str, body: &Value) -> Reply {
    story.client.post(path, body).bearer(&user.access_token).send().await
}

async fn change_password(story: &Story, user: &User, current: &str) -> Reply {
    let body = json!({"currentPassword": current, "newPassword": NEW_PASSWORD});
    bearer_post(story, user, "/api/v1/auth/change-password", &body).await
}

async fn delete(story: &Story, user: &User, body: Option<&Value>) -> Reply {
    let request = story.client.request(Method::DELETE, "/api/v1/auth/account").bearer(&user.access_token);
    match body {
        Some(body) => request.body("application/json", body.to_string()).send().await,
        None => request.send().await,
    }
}

async fn balance(story: &Story, user: &User) -> i64 {
    story.get("/api/v1/credits/balance", user).await.integer("/freeCreditsRemaining")
}

#[tokio::test]
async fn a_profile_changes_what_is_given_and_nothing_else() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let change = async |body: Value| bearer_post(&story, &ada, "/api/v1/auth/profile", &body).await;
    let changed = change(json!({"name": "Ada", "image": "https://cdn.example.com/ada.png"})).await;
    assert_eq!((changed.status.as_u16(), &changed.json["success"]), (201, &json!(true)));
    assert_eq!(
        (changed.text("/user/name"), changed.text("/user/image")),
        ("Ada", "https://cdn.example.com/ada.png")
    );
    assert_eq!(
        change(json!({"name": "Ada Lovelace"})).await.text("/user/image"),
        "https://cdn.example.com/ada.png"
    );
    let profile = story.get("/api/v1/auth/profile", &ada).await;
    assert_eq!((profile.status.as_u16(), profile.text("/name")), (200, "Ada Lovelace"));
    let cleared = change(json!({"name": "", "image": ""})).await;
    assert_eq!((&cleared.json["user"]["name"], &cleared.json["user"]["image"]), (&json!(null), &json!(null)));
    for bad in [
        json!({"role": "admin"}),
        json!({"emailVerified": true}),
        json!({"email": "eve@example.com"}),
        json!({"image": "javascript:alert(1)"}),
        json!({"image": "data:text/html,x"}),
        json!({"image": format!("https://a.example/{}", "x".repeat(2048))}),
        json!({"name": "a\u{0}b"}),
        json!({"name": "x".repeat(256)}),
    ] {
        assert_eq!(change(bad.clone()).await.status, 400, "{bad}");
    }
    let me = story.get("/api/v1/auth/me", &ada).await;
    assert_eq!((me.text("/role"), me.text("/email")), ("user", "ada@example.com"));
}

#[tokio::test]
async fn a_changed_password_signs_out_the_other_devices_and_tells_the_owner() {
    let story = Story::new().await;
    let (here, there) = (story.user("ada@example.com").await, story.sign_in("ada@example.com").await);
    let wrong = change_password(&story, &here, "not the password").await;
    assert_eq!((wrong.status.as_u16(), wrong.problem()), (401, "auth.wrong_current_password"));
    assert_eq!(wrong.text("/message"), "Current password is incorrect");
    assert!(story.is_signed_in(&there).await);

    let changed = change_password(&story, &here, PASSWORD).await;
    assert_eq!((changed.status.as_u16(), &changed.json["success"]), (200, &json!(true)), "{}", changed.json);
    assert!(story.is_signed_in(&here).await && !story.is_signed_in(&there).await);
    assert_eq!(story.refresh(&there.refresh_token).await.status, 401);
    assert_eq!(story.refresh(&here.refresh_token).await.status, 200);
    assert_eq!(story.login("ada@example.com").await.status, 401);
    let body = json!({"email": "ada@example.com", "password": NEW_PASSWORD});
    assert_eq!(story.post("/api/v1/auth/login", &body).await.status, 200);
    let mails = story.mails().await;
    assert!(mails.iter().any(|kept| about(&kept.mail) == "Your password was changed"));
    let events = story.get("/api/v1/auth/security-events", &here).await;
    assert!(events.json.as_array().unwrap().iter().any(|event| event["type"] == "password_changed"));
    let short = json!({"currentPassword": NEW_PASSWORD, "newPassword": "short"});
    assert_eq!(bearer_post(&story, &here, "/api/v1/auth/change-password", &short).await.status, 400);
}

#[tokio::test]
async fn guesses_at_the_current_password_slow_down_as_sign_ins_do() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut last = 0;
    for _ in 0..12 {
        last = change_password(&story, &ada, "not the password").await.status.as_u16();
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn of_devices_that_change_the_password_at_once_one_wins_and_signs_the_others_out() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let devices = join_all((0..4).map(|_| story.sign_in("ada@example.com"))).await;
    let replies = join_all(devices.iter().map(|device| change_password(&story, device, PASSWORD))).await;
    let won: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(won.len(), 1, "{:?}", replies.iter().map(|reply| reply.status).collect::<Vec<_>>());
    assert!(replies.iter().all(|reply| reply.status == 200 || reply.status == 401));
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL").await, 1);
}

/// Every row of every table, with what bytes hold as text.
async fn everything(story: &Story) -> String {
    let mut owner = story.database.owner().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname IN ('auth', 'credits') AND relkind = 'r'",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut all = String::new();
    for table in tables {
        let rows =
            format!("SELECT coalesce(string_agg(to_jsonb(line)::text, chr(10)), '') FROM {table} line");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut owner).await.unwrap();
        all.push_str(&rows);
    }
    all
}

#[tokio::test]
async fn a_deleted_account_leaves_an_id_and_true_books() {
    let story = Story::new().await;
    let register = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada Lovelace"});
    assert_eq!(story.post("/api/v1/auth/register", &register).await.status, 201);
    let login = json!({"email": "ada@example.com", "password": PASSWORD, "deviceId": "the-phone-of-ada", "deviceName": "Phone of Ada"});
    let login = story.client.post("/api/v1/auth/login", &login).header("user-agent", "AdasOwnBrowser/1");
    let ada = User::of(&login.send().await);
    let image = json!({"image": "https://cdn.example.com/face.png"});
    assert_eq!(bearer_post(&story, &ada, "/api/v1/auth/profile", &image).await.status, 201);
    assert_eq!(story.spend(&ada, &spend_of(30)).await.status, 201);
    two_factor::leave_rows(&story, &ada).await;
    story.post("/api/v1/auth/forgot-password", &json!({"email": "ada@example.com"})).await;
    let traces =
        ["ada@example.com", "Ada Lovelace", "the-phone-of-ada", "Phone of Ada", "face.png", "argon2id"];
    let before = everything(&story).await;
    assert!(traces.iter().all(|trace| before.contains(trace)), "the control");

    let wrong = delete(&story, &ada, Some(&json!({"password": "not the password"}))).await;
    assert_eq!((wrong.status.as_u16(), wrong.text("/message")), (401, "Password is incorrect"));
    assert!(story.is_signed_in(&ada).await);
    let deleted =
        delete(&story, &ada, Some(&json!({"password": PASSWORD, "reason": "Too many mails"}))).await;
    assert_eq!((deleted.status.as_u16(), &deleted.json["success"]), (200, &json!(true)), "{}", deleted.json);

    assert!(!story.is_signed_in(&ada).await);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 401);
    assert_eq!(story.login("ada@example.com").await.status, 401);
    assert_eq!(story.spend(&ada, &spend_of(1)).await.status, 401);
    let mails = story.mails().await;
    assert_eq!(mails.iter().filter(|kept| about(&kept.mail) == "Your account was deleted").count(), 1);
    let after = everything(&story).await;
    for trace in traces.iter().chain(&["Too many mails"]) {
        let place = after.find(trace).map(|place| &after[place.saturating_sub(200)..place + 40]);
        assert_eq!(place, None, "{trace}");
    }
    let kept: (String, bool, bool) = sqlx::query_as(
        "SELECT email, deleted_at IS NOT NULL, disabled_at IS NOT NULL FROM auth.users WHERE id = $1",
    )
    .bind(&ada.id)
    .fetch_one(&mut story.database.owner().await)
    .await
    .unwrap();
    assert_eq!(kept, (format!("deleted:{}", ada.id), true, true));
    let closed = "SELECT count(*) FROM credits.balances WHERE closed_at IS NOT NULL AND free = 120";
    assert_eq!(story.number(closed).await, 1, "the books go on naming the id");
    let events = "SELECT count(*) FROM auth.security_events WHERE type = 'account_deleted'";
    assert_eq!(story.number(events).await, 1);
    books_are_true(&story).await;
}

#[tokio::test]
async fn nobody_who_was_deleted_can_be_let_in_again() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(delete(&story, &ada, Some(&json!({"password": PASSWORD}))).await.status, 200);
    for change in ["disabled_at = NULL", "deleted_at = NULL", "disabled_at = NULL, deleted_at = NULL"] {
        let update = format!("UPDATE auth.users SET {change}");
        let refused =
            sqlx::query(sqlx::AssertSqlSafe(update)).execute(&mut story.database.owner().await).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some("users_stay_deleted"), "{change}");
    }
}

#[tokio::test]
async fn an_account_is_deleted_by_a_password_or_by_a_fresh_sign_in() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::minutes(11));
    let stale = delete(&story, &ada, None).await;
    assert_eq!((stale.status.as_u16(), stale.problem()), (403, "auth.fresh_authentication_required"));
    let stale = delete(&story, &ada, Some(&json!({"reason": "x"}))).await;
    assert_eq!(stale.status, 403);
    let fresh = story.sign_in("ada@example.com").await;
    assert_eq!(delete(&story, &fresh, None).await.status, 200);
    assert!(!story.is_signed_in(&ada).await && !story.is_signed_in(&fresh).await);
    assert_eq!(delete(&story, &fresh, None).await.status, 401);
}

#[tokio::test]
async fn who_deletes_and_registers_again_gets_no_second_bonus() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    assert_eq!(balance(&story, &ada).await, 150);
    assert_eq!(delete(&story, &ada, Some(&json!({"password": PASSWORD}))).await.status, 200);
    for spelling in ["ada@example.com", "ADA@example.com", "ada+again@example.com"] {
        let again = story.user(spelling).await;
        assert_ne!(again.id, ada.id);
        assert_eq!(balance(&story, &again).await, 0, "{spelling}");
        assert_eq!(delete(&story, &again, Some(&json!({"password": PASSWORD}))).await.status, 200);
    }
    let dotted = story.user("ada.lovelace@gmail.com").await;
    assert_eq!(balance(&story, &dotted).await, 150);
    assert_eq!(delete(&story, &dotted, Some(&json!({"password": PASSWORD}))).await.status, 200);
    let plain = story.user("adalovelace@googlemail.com").await;
    assert_eq!(balance(&story, &plain).await, 0);
    let other = story.user("bob@example.com").await;
    assert_eq!(balance(&story, &other).await, 150, "the control");
    books_are_true(&story).await;
    let kept: Vec<String> = sqlx::query_scalar("SELECT to_jsonb(kept)::text FROM auth.bonus_mailboxes kept")
        .fetch_all(&mut story.database.owner().await)
        .await
        .unwrap();
    let plain = crate::story::hex(&mana_kernel::secret::sha256(b"ada@example.com"));
    assert!(
        kept.len() == 3 && kept.iter().all(|row| !row.contains('@') && !row.contains(&plain)),
        "{kept:?}"
    );
}

#[tokio::test]
async fn an_account_is_deleted_once_also_at_once_while_it_spends_and_somebody_signs_in() {
    let story = Story::with(|settings| settings.sign_in_free_failures = 1000).await;
    let ada = story.user("ada@example.com").await;
    let body = json!({"password": PASSWORD});
    let deletions = join_all((0..4).map(|_| delete(&story, &ada, Some(&body))));
    let spend = spend_of(1);
    let spends = join_all((0..20).map(|_| story.spend(&ada, &spend)));
    let sign_ins = join_all((0..8).map(|_| story.login("ada@example.com")));
    let (deletions, spends, sign_ins) = tokio::join!(deletions, spends, sign_ins);
    for reply in &sign_ins {
        assert!([200, 401].contains(&reply.status.as_u16()), "{} {}", reply.status, reply.json);
    }
    assert_eq!(deletions.iter().filter(|reply| reply.status == 200).count(), 1);
    for reply in deletions.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 401, "{}", reply.json);
    }
    for reply in &spends {
        assert!([201, 401, 409].contains(&reply.status.as_u16()), "{} {}", reply.status, reply.json);
    }
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'account_deleted'").await,
        1
    );
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL").await, 0);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_person_gets_all_that_is_kept_and_nothing_of_anybody_else() {
    let story = Story::new().await;
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    story.sign_in("ada@example.com").await;
    for _ in 0..3 {
        assert_eq!(story.spend(&ada, &spend_of(2)).await.status, 201);
    }
    story.spend(&bob, &spend_of(1)).await;
    let owner = two_factor::set_up(&story, ada).await;
    let ada = owner.user;
    let root = story.administrator("root@example.com").await;
    let act = story.client.post(
        &format!("/api/v1/admin/users/{}/credits/take", ada.id),
        &json!({"amount": 1, "reason": "Ticket 17"}),
    );
    let act = act.bearer(&root.access_token).header("user-agent", "a browser of root");
    assert_eq!(act.send().await.status, 201);
    let hold = story.client.post("/api/v1/credits/holds", &spend_of(5)).bearer(&ada.access_token);
    assert_eq!(hold.send().await.status, 201);
    let low = story.client.request(Method::PUT, "/api/v1/credits/low-balance");
    let low = low.body("application/json", json!({"below": 7, "mail": true}).to_string());
    assert_eq!(low.bearer(&ada.access_token).send().await.status, 200);
    let export = story.get("/api/v1/auth/export", &ada).await;
    assert_eq!(export.status, 200);
    assert!(export.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert_eq!(export.headers["cache-control"], "no-store");
    let count = |pointer: &str| export.json.pointer(pointer).and_then(Value::as_array).unwrap().len();
    assert_eq!(export.text("/user/email"), "ada@example.com");
    assert_eq!(
        (
            count("/sessions"),
            count("/credits/wallet"),
            count("/credits/transactions"),
            count("/credits/holds")
        ),
        (2, 1, 5, 1)
    );
    assert!(count("/securityEvents") >= 3);
    assert_eq!(count("/credits/purchases"), 0);
    assert_eq!((count("/credits/refunds"), count("/credits/disputes")), (0, 0));
    assert_eq!((count("/credits/usage"), export.integer("/credits/usage/0/spent")), (1, 6));
    assert_eq!((count("/secondFactor"), export.integer("/secondFactor/0/recoveryCodesLeft")), (1, 10));
    assert!(export.json["secondFactor"][0]["setUpAt"].is_string());
    assert_eq!(export.integer("/credits/wallet/0/free"), 138);
    assert_eq!(export.integer("/credits/wallet/0/lowBalanceBelow"), 7);
    let text = String::from_utf8(export.bytes.to_vec()).unwrap();
    let secrets = [owner.secret.as_str(), owner.recovery_codes[0].as_str()];
    for foreign in
        [&bob.id, &root.id, "bob@", "a browser of root", "Ticket 17", "argon2", "mrt_", "mst_", "hash"]
            .into_iter()
            .chain(secrets)
    {
        assert!(!text.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn an_export_that_is_under_way_breaks_off_when_its_session_ends_or_nobody_reads_it() {
    let story = Story::new().await;
    let client = story.unwatched().await;
    for how in ["its session ends", "nobody reads it", "the control"] {
        let mallory = story.user(&format!("{}@example.com", how.replace(' ', "-"))).await;
        let mut export = client.get("/api/v1/auth/export").bearer(&mallory.access_token).open().await;
        assert_eq!(export.status, 200);
        let head = export.next().await.unwrap().unwrap();
        assert!(head.len() < 1000, "the head: {}", String::from_utf8_lossy(&head));
        match how {
            "its session ends" => {
                let out = story.client.request(Method::POST, "/api/v1/auth/logout");
                out.bearer(&mallory.access_token).send().await;
            }
            "nobody reads it" => story.clock.advance(Duration::minutes(5)),
            _ => story.clock.advance(Duration::minutes(4)),
        }
        let (mut rest, mut broke_off) = (Vec::new(), false);
        while let Some(piece) = export.next().await {
            match piece {
                Ok(piece) => rest.extend_from_slice(&piece),
                Err(_) => {
                    broke_off = true;
                    break;
                }
            }
        }
        let rest = String::from_utf8(rest).unwrap();
        if how == "the control" {
            assert!(!broke_off && rest.ends_with('}'), "{rest}");
        } else {
            assert!(broke_off && rest.is_empty(), "{how}: {rest}");
        }
    }
}

#[tokio::test]
async fn more_exports_at_once_than_there_are_connections_are_all_whole() {
    let story = Story::new().await;
    let mallory = story.user("mallory@example.com").await;
    let client = story.unwatched().await;
    let exports = (0..40).map(|_| client.get("/api/v1/auth/export").bearer(&mallory.access_token).send());
    for export in join_all(exports).await {
        assert_eq!((export.status.as_u16(), export.text("/user/id")), (200, mallory.id.as_str()));
        assert_eq!(export.json["secondFactor"], json!([]));
        assert!(export.json["credits"]["wallet"].is_array(), "{}", export.json);
    }
}

#[tokio::test]
async fn a_long_history_is_exported_to_its_end() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let mut owner = story.database.owner().await;
    sqlx::query(
        "INSERT INTO auth.security_events (id, user_id, type, created_at)
         SELECT gen_random_uuid(), $1, 'signed_in', now() - (number / 3) * interval '1 minute' FROM generate_series(1, 1200) number",
    )
    .bind(&ada.id)
    .execute(&mut owner)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at, revoked_at, revoked_reason)
         SELECT 'old-' || number, $1, sha256(number::text::bytea), false, now(), now(), now(), now(), 'signed_out' FROM generate_series(1, 700) number",
    )
    .bind(&ada.id)
    .execute(&mut owner)
    .await
    .unwrap();
    let export = story.get("/api/v1/auth/export", &ada).await;
    for (list, expected) in [("/sessions", 701), ("/securityEvents", 1202)] {
        let rows = export.json.pointer(list).and_then(Value::as_array).unwrap();
        let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((rows.len(), ids.len()), (expected, expected), "{list}");
    }
}
