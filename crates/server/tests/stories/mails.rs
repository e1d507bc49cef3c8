//! Mails on their way: what an SMTP server does delays them and nothing else, and each is sent once.

use crate::observed::Metrics;
use crate::smtp::{Manners, SmtpServer};
use crate::story::{PASSWORD, Story};
use mana_testkit::Reply;
use serde_json::json;
use std::time::Duration as Wait;
use time::Duration;

const PATIENT: Wait = Wait::from_secs(20);
const WAITING: &str = "SELECT count(*) FROM auth.outgoing_mails";

/// Signs in from a device with an id of its own: a new one is told to the owner by mail.
async fn sign_in_from(story: &Story, email: &str, device: &str) -> Reply {
    let credentials = json!({"email": email, "password": PASSWORD, "deviceId": device});
    story.post("/api/v1/auth/login", &credentials).await
}

/// A service that mails to `server`, with one mail waiting.
async fn with_a_mail(server: &SmtpServer, patience: Wait) -> Story {
    let story = Story::mailing(server.mailer(patience)).await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    assert_eq!(sign_in_from(&story, "ada@example.com", "phone").await.status, 200);
    assert_eq!(story.number(WAITING).await, 1);
    story
}

#[tokio::test]
async fn a_mail_goes_encrypted_signed_in_and_to_its_one_recipient() {
    let server = SmtpServer::start(Manners::Kind);
    let story = with_a_mail(&server, PATIENT).await;
    story.workers.deliver_mails().await;
    story.workers.deliver_mails().await;

    let received = server.received();
    let [mail] = &received[..] else { panic!("not one mail: {received:?}") };
    assert!(mail.was_encrypted && mail.was_signed_in);
    assert_eq!(mail.envelope, ["MAIL FROM:<mana@auth.example.com>", "RCPT TO:<ada@example.com>"]);
    let (head, body) = mail.content.split_once("\r\n\r\n").unwrap();
    let count = |name: &str| head.lines().filter(|line| line.to_lowercase().starts_with(name)).count();
    for header in ["subject:", "to:", "from:", "date:", "message-id:", "auto-submitted: auto-generated"] {
        assert_eq!(count(header), 1, "{header} in {head}");
    }
    assert_eq!((count("bcc:"), count("cc:")), (0, 0));
    assert!(body.contains("text/plain") && body.contains("text/html"), "{body}");
    assert!(mail.content.is_ascii());
    assert_eq!(story.number(WAITING).await, 0);
}

#[tokio::test]
async fn without_starttls_nothing_of_a_mail_or_a_password_goes_in_clear() {
    let server = SmtpServer::start(Manners::WithoutTls);
    let story = with_a_mail(&server, PATIENT).await;
    story.workers.deliver_mails().await;
    let heard = server.heard_in_clear();
    assert!(heard.iter().any(|line| line.starts_with("EHLO")), "{heard:?}");
    assert!(
        heard.iter().all(|line| ["EHLO", "QUIT", ""].contains(&line.trim_end().split(' ').next().unwrap())),
        "{heard:?}"
    );
    assert_eq!(story.number(WAITING).await, 1);

    server.behave(Manners::Kind);
    story.clock.advance(Duration::minutes(1));
    story.workers.deliver_mails().await;
    assert!(server.received()[0].was_encrypted);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let (server, other) = (SmtpServer::start(Manners::Kind), SmtpServer::stopped(Manners::Kind));
    let mut settings = mana_platform::Settings::defaults().unwrap();
    other.name_in(&mut settings);
    let trusted = settings.smtp_ca_file.clone();
    server.name_in(&mut settings);
    settings.smtp_ca_file = trusted;
    let settings = mana_platform::mail::MailSettings::from_settings(&settings).unwrap().unwrap();
    let smtp = mana_platform::mail::Smtp::new(settings, std::sync::Arc::new(mana_platform::SystemClock));
    let story = Story::mailing(std::sync::Arc::new(smtp)).await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    assert_eq!(sign_in_from(&story, "ada@example.com", "phone").await.status, 200);
    story.workers.deliver_mails().await;
    assert!(server.received().is_empty());
    assert_eq!(story.number(WAITING).await, 1);
}

#[tokio::test]
async fn a_server_that_is_down_delays_the_mail_and_not_the_sign_in() {
    let mut server = SmtpServer::stopped(Manners::Kind);
    let story = with_a_mail(&server, PATIENT).await;
    story.workers.deliver_mails().await;
    assert_eq!(story.number(WAITING).await, 1);
    server.resume();
    story.workers.deliver_mails().await;
    assert_eq!(server.received().len(), 0, "not before its time");
    story.clock.advance(Duration::seconds(30));
    story.workers.deliver_mails().await;
    assert_eq!((server.received().len(), story.number(WAITING).await), (1, 0));
}

#[tokio::test]
async fn a_refusal_that_is_about_the_mail_or_its_mailbox_ends_it_and_any_other_delays_it() {
    let server = SmtpServer::start(Manners::Kind);
    let story = Story::mailing(server.mailer(PATIENT)).await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    let cases = [
        (Manners::ToRecipient("450 4.2.1 mailbox busy"), 1),
        (Manners::ToRecipient("550 5.1.1 <ada@example.com> unknown"), 0),
        (Manners::ToRecipient("550 no such user"), 0),
        (
            Manners::ToRecipient(
                "554 5.7.1 <mx.example.com[203.0.113.1]>: Client host rejected: Access denied",
            ),
            1,
        ),
        (Manners::ToRecipient("554 5.7.1 <ada@example.com>: Relay access denied"), 1),
        (Manners::ToContent("451 4.3.0 try again"), 1),
        (Manners::ToContent("552 5.3.4 too big"), 0),
        (Manners::ToContent("554 5.7.1 not wanted"), 1),
        (Manners::ToSender("550 5.7.1 who are you?"), 1),
        (Manners::ToSignIn("535 5.7.8 wrong password"), 1),
    ];
    for (number, (manners, still_waiting)) in cases.into_iter().enumerate() {
        server.behave(manners);
        story.clock.advance(Duration::hours(1));
        assert_eq!(sign_in_from(&story, "ada@example.com", &format!("device {number}")).await.status, 200);
        story.workers.deliver_mails().await;
        assert_eq!(story.number(WAITING).await, still_waiting, "{manners:?}");
        story.execute("DELETE FROM auth.outgoing_mails").await;
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_neither_sign_ins_nor_database_connections() {
    let server = SmtpServer::start(Manners::Silent);
    let story = with_a_mail(&server, Wait::from_mins(5)).await;
    let in_use = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'mana_service' AND datname = current_database() AND state <> 'idle'";
    let meanwhile = async {
        server.connected().await;
        assert_eq!(story.number(in_use).await, 0, "no transaction is open");
        sign_in_from(&story, "ada@example.com", "phone").await.status
    };
    tokio::select! {
        () = story.workers.deliver_mails() => panic!("the server said something"),
        status = meanwhile => assert_eq!(status, 200),
    }
    assert_eq!(story.number(WAITING).await, 1);
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_given_up_for_the_time_being() {
    futures_util::future::join_all([Manners::Silent, Manners::SilentAtTheEnd].map(async |manners| {
        let server = SmtpServer::start(manners);
        let story = with_a_mail(&server, Wait::from_secs(5)).await;
        tokio::join!(story.workers.deliver_mails(), server.fell_silent());
        assert_eq!(story.number(WAITING).await, 1, "{manners:?}");
        assert_eq!(server.received().len(), 0, "{manners:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_mail_that_nobody_gets_is_not_counted_as_sent() {
    let server = SmtpServer::start(Manners::Kind);
    for (story, sent, logged) in [(with_a_mail(&server, PATIENT).await, 1, 0), (Story::new().await, 0, 1)] {
        story.register("bob@example.com").await;
        story.execute("DELETE FROM auth.outgoing_mails").await;
        for device in ["laptop", "phone"] {
            assert_eq!(sign_in_from(&story, "bob@example.com", device).await.status, 200);
        }
        for (outcome, expected) in [("sent", sent), ("logged", logged)] {
            let metrics = Metrics::default();
            let guard = metrics.watch();
            story.workers.deliver_mails().await;
            drop(guard);
            let counted = format!("mails_total template=new_device outcome={outcome}");
            assert_eq!(metrics.take(&counted), expected, "{counted}");
            // For the other one.
            sign_in_from(&story, "bob@example.com", &format!("after {outcome}")).await;
        }
    }
}

#[tokio::test]
async fn what_a_killed_server_had_claimed_is_sent_when_its_lease_is_over() {
    let server = SmtpServer::start(Manners::Silent);
    let story = with_a_mail(&server, PATIENT).await;
    tokio::select! {
        () = story.workers.deliver_mails() => panic!("the server said something"),
        () = server.connected() => {}
    }
    server.behave(Manners::Kind);
    let other = story.replica_with(|_| {}).await.workers;
    other.deliver_mails().await;
    assert!(server.received().is_empty(), "the first might still be at it");
    story.clock.advance(Duration::minutes(3));
    other.deliver_mails().await;
    assert_eq!((server.received().len(), story.number(WAITING).await), (1, 0));
}

#[tokio::test]
async fn a_mail_that_nobody_takes_is_given_up_after_three_days() {
    let server = SmtpServer::stopped(Manners::Kind);
    let story = with_a_mail(&server, PATIENT).await;
    for _ in 0..71 {
        story.workers.deliver_mails().await;
        story.clock.advance(Duration::hours(1));
    }
    story.workers.deliver_mails().await;
    assert_eq!(story.number(WAITING).await, 1);
    story.clock.advance(Duration::hours(1));
    story.workers.deliver_mails().await;
    assert_eq!(story.number(WAITING).await, 0);
}

#[tokio::test]
async fn two_servers_send_each_mail_once() {
    let story = Story::new().await;
    for name in ["ada", "bob", "eve"] {
        let email = format!("{name}@example.com");
        story.user(&email).await;
        story.execute("DELETE FROM auth.outgoing_mails WHERE template = 'verify_email'").await;
        for device in 0..5 {
            sign_in_from(&story, &email, &device.to_string()).await;
        }
    }
    assert_eq!(story.number(WAITING).await, 15);
    let other = story.replica_with(|_| {}).await.workers;
    tokio::join!(story.workers.deliver_mails(), other.deliver_mails(), story.workers.deliver_mails());
    let mut ids: Vec<_> = story.mails().await.iter().map(|kept| kept.mail.id).collect();
    assert_eq!(ids.len(), 15);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 15);
}

#[tokio::test]
async fn an_address_gets_five_mails_of_a_kind_an_hour_and_the_sign_in_its_event_all_the_same() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    for device in 0..7 {
        assert_eq!(sign_in_from(&story, "ada@example.com", &device.to_string()).await.status, 200);
    }
    assert_eq!(story.mails().await.len(), 5);
    assert_eq!(story.number("SELECT count(*) FROM auth.security_events WHERE type = 'new_device'").await, 7);
    story.workers.prune().await;
    sign_in_from(&story, "ada@example.com", "still within the hour").await;
    assert_eq!(story.mails().await.len(), 5);
    story.clock.advance(Duration::hours(1));
    sign_in_from(&story, "ada@example.com", "an hour later").await;
    assert_eq!(story.mails().await.len(), 6);
    story.clock.advance(Duration::hours(1));
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.mail_budgets").await, 0);
}

#[tokio::test]
async fn the_queue_alone_tells_nobody_what_a_mail_says() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    story.forget_mails().await;
    sign_in_from(&story, "ada@example.com", "phone").await;
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT to_jsonb(mail)::text || encode(sealed, 'escape') FROM auth.outgoing_mails mail
         UNION ALL SELECT to_jsonb(token)::text FROM auth.disown_tokens token
         UNION ALL SELECT to_jsonb(budget)::text FROM auth.mail_budgets budget",
    )
    .fetch_all(&mut story.database.owner().await)
    .await
    .unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        for secret in ["mnm_", "not-me", "ada@example.com"] {
            assert!(!row.contains(secret), "{secret} in {row}");
        }
    }
    story.execute("UPDATE auth.outgoing_mails SET id = gen_random_uuid()").await;
    assert!(story.mails().await.is_empty(), "a content that was moved to another row does not open");
}
