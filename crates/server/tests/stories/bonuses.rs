//! The sign-up bonus: one for each mailbox, once its owner is known if that is asked for, and so many for a network.

use crate::credits::books_are_true;
use crate::story::{PASSWORD, Story};
use futures_util::future::join_all;
use mana_auth::account::model::{Role, User};
use mana_auth::account::verify::mark_verified;
use mana_auth::security_event::Origin;
use mana_kernel::Clock as _;
use mana_platform::config::DisposableAddresses;
use mana_testkit::Client;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

const BONUSES: &str = "SELECT count(*) FROM credits.transactions";

async fn register(client: &Client, email: &str) -> u16 {
    let body = json!({"email": email, "password": PASSWORD});
    client.post("/api/v1/auth/register", &body).send().await.status.as_u16()
}

/// What the account has to spend.
async fn balance(story: &Story, email: &str) -> i64 {
    let user = story.sign_in(email).await;
    story.get("/api/v1/credits/balance", &user).await.integer("/freeCreditsRemaining")
}

/// Registers, and says what the account has to spend.
async fn gets(story: &Story, email: &str) -> i64 {
    assert_eq!(register(&story.client, email).await, 201, "{email}");
    balance(story, email).await
}

/// The owner of the address follows the link that was sent to it.
async fn verify(story: &Story, email: &str) -> bool {
    let user = story.sign_in(email).await;
    prove(story, &user.id, email).await
}

async fn prove(story: &Story, id: &str, email: &str) -> bool {
    let auth = &story.workers.auth;
    let user = User {
        id: id.parse().unwrap(),
        email: email.to_owned(),
        name: None,
        role: Role::User,
        email_verified: false,
        image: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
        ways_in_epoch: 0,
    };
    let mut transaction = auth.database.begin().await.unwrap();
    let is_new = mark_verified(&mut transaction, auth, &user, &Origin::default()).await.unwrap();
    transaction.commit().await.unwrap();
    is_new
}

#[tokio::test]
async fn spellings_of_one_mailbox_get_one_bonus_and_other_mailboxes_theirs() {
    let story = Story::new().await;
    assert_eq!(gets(&story, "ada.lovelace@gmail.com").await, 150);
    for spelling in ["adalovelace@gmail.com", "a.d.a.lovelace+mana@googlemail.com", "adalovelace+2@gmail.com"]
    {
        assert_eq!(gets(&story, spelling).await, 0, "{spelling}");
    }
    assert_eq!(gets(&story, "grace@example.com").await, 150);
    assert_eq!(gets(&story, "grace+2@example.com").await, 0);
    for other in ["ada@gmail.com", "adalovelace@example.com", "gra.ce@example.com"] {
        assert_eq!(gets(&story, other).await, 150, "{other}");
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn of_twenty_spellings_at_once_one_gets_the_bonus() {
    let story = Story::new().await;
    let replica = story.replica().await;
    let registered = (0..20).map(|number| {
        let client = if number % 2 == 0 { story.client.clone() } else { replica.clone() };
        async move { register(&client, &format!("ada+{number}@gmail.com")).await }
    });
    assert!(join_all(registered).await.iter().all(|status| *status == 201));
    assert_eq!((story.number("SELECT count(*) FROM auth.users").await, story.number(BONUSES).await), (20, 1));
    assert_eq!(story.number("SELECT count(*) FROM auth.bonus_mailboxes").await, 1);
    books_are_true(&story).await;
}

#[tokio::test]
async fn who_deletes_an_account_and_registers_again_gets_no_other_bonus() {
    let story = Story::new().await;
    assert_eq!(gets(&story, "ada@example.com").await, 150);
    // As a deletion leaves it: the address is free again.
    story.execute("UPDATE auth.users SET email = 'deleted-1@invalid.invalid', disabled_at = now()").await;
    assert_eq!(gets(&story, "ada@example.com").await, 0);
    assert_eq!(gets(&story, "grace@example.com").await, 150);
}

#[tokio::test]
async fn a_mailbox_is_remembered_under_a_new_root_secret_while_the_old_one_stands_behind_it() {
    let story = Story::new().await;
    assert_eq!(gets(&story, "ada@example.com").await, 150);
    let newer = mana_auth::token::root_secret::RootSecrets::generate("newer", &mana_platform::SystemRng);
    let both = format!("{},{}", newer.expose_secret(), story.root_secret().expose_secret());
    let replica = story.start(|_| {}, &SecretString::from(both)).await.unwrap();
    assert_eq!(register(&replica.client, "ada+2@example.com").await, 201);
    assert_eq!(balance(&story, "ada+2@example.com").await, 0);
    assert_eq!(register(&replica.client, "grace@example.com").await, 201);
    assert_eq!(balance(&story, "grace@example.com").await, 150);
}

#[tokio::test]
async fn what_is_remembered_tells_no_address() {
    let story = Story::new().await;
    gets(&story, "ada@example.com").await;
    let guessed = "SELECT count(*) FROM auth.bonus_mailboxes WHERE mailbox_hash = sha256('ada@example.com')
                       OR mailbox_hash = sha256('mailbox ada@example.com') OR encode(mailbox_hash, 'escape') LIKE '%ada%'";
    assert_eq!(story.number(guessed).await, 0);
}

#[tokio::test]
async fn a_bonus_that_waits_for_the_address_comes_with_its_proof_once() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    assert_eq!(gets(&story, "ada@example.com").await, 0, "not yet");
    assert_eq!(gets(&story, "grace@example.com").await, 0);
    assert!(verify(&story, "ada@example.com").await);
    assert_eq!(balance(&story, "ada@example.com").await, 150);
    assert!(!verify(&story, "ada@example.com").await, "that was known");
    assert_eq!(balance(&story, "ada@example.com").await, 150);
    assert_eq!(balance(&story, "grace@example.com").await, 0);

    // Whoever proves another address later gets nothing more.
    story.execute("UPDATE auth.users SET email_verified = false").await;
    assert!(verify(&story, "ada@example.com").await);
    assert_eq!(balance(&story, "ada@example.com").await, 150);
    books_are_true(&story).await;
}

#[tokio::test]
async fn a_bonus_that_waited_is_booked_when_it_is_given_and_leaves_the_past_as_it_was() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::hours(2));
    let then = story.clock.now().format(&Rfc3339).unwrap();
    story.clock.advance(Duration::hours(3));
    let path = format!("/api/v1/credits/balance?asOf={then}");
    let past = async || {
        let ada = story.sign_in("ada@example.com").await;
        story.get(&path, &ada).await.integer("/freeCreditsRemaining")
    };
    assert_eq!(past().await, 0);
    let proven_at = story.clock.now();
    assert!(prove(&story, &ada.id, "ada@example.com").await);
    story.clock.advance(Duration::minutes(1));
    assert_eq!((past().await, balance(&story, "ada@example.com").await), (0, 150));
    for time in [
        "SELECT floor(extract(epoch FROM created_at))::bigint FROM credits.transactions",
        "SELECT floor(extract(epoch FROM updated_at))::bigint FROM credits.balances",
    ] {
        assert_eq!(story.number(time).await, proven_at.unix_timestamp(), "{time}");
    }
    books_are_true(&story).await;
}

#[tokio::test]
async fn proofs_at_once_give_one_bonus() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    let ada = story.user("ada@example.com").await;
    let proofs = join_all((0..10).map(|_| prove(&story, &ada.id, "ada@example.com"))).await;
    assert_eq!(proofs.iter().filter(|is_new| **is_new).count(), 1, "{proofs:?}");
    assert_eq!((balance(&story, "ada@example.com").await, story.number(BONUSES).await), (150, 1));
}

#[tokio::test]
async fn a_spelling_that_nobody_has_proven_takes_no_bonus_from_the_owner() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    gets(&story, "ada+eve@gmail.com").await;
    gets(&story, "ada@gmail.com").await;
    assert!(verify(&story, "ada@gmail.com").await);
    assert_eq!(balance(&story, "ada@gmail.com").await, 150);
    assert!(verify(&story, "ada+eve@gmail.com").await);
    assert_eq!(balance(&story, "ada+eve@gmail.com").await, 0, "the same mailbox");
}

#[tokio::test]
async fn a_proof_of_an_address_that_was_replaced_proves_nothing() {
    let story = Story::with(|settings| settings.credits_bonus_requires_verification = true).await;
    let ada = story.user("ada@example.com").await;
    assert!(!prove(&story, &ada.id, "old@example.com").await);
    assert_eq!(balance(&story, "ada@example.com").await, 0);
    assert!(prove(&story, &ada.id, "ada@example.com").await);
    assert_eq!(balance(&story, "ada@example.com").await, 150);
}

#[tokio::test]
async fn a_network_gets_so_many_bonuses_a_day_and_others_are_not_kept_from_theirs() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1_000_000;
        settings.rate_limit_register = 0;
        settings.rate_limit_login = 0;
        settings.credits_bonuses_per_network = 3;
    })
    .await;
    let registered = join_all((0..12).map(|number| {
        let client = story.client.at(&format!("198.51.100.{number}"));
        async move { register(&client, &format!("a{number}@example.com")).await }
    }));
    assert!(registered.await.iter().all(|status| *status == 201), "accounts are made all the same");
    assert_eq!(story.number(BONUSES).await, 3);
    for (number, (address, bonuses)) in
        [("198.51.100.200", 3), ("198.51.101.1", 4), ("2001:db8:1:1::1", 5), ("203.0.113.5", 6)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(register(&story.client.at(address), &format!("b{number}@example.com")).await, 201);
        assert_eq!(story.number(BONUSES).await, bonuses, "{address}");
    }
    for site in 2..6 {
        let client = story.client.at(&format!("2001:db8:1:{site}::1"));
        assert_eq!(register(&client, &format!("c{site}@example.com")).await, 201);
    }
    assert_eq!(story.number(BONUSES).await, 8, "all sites of a /48 are one network");

    story.clock.advance(Duration::hours(24));
    assert_eq!(register(&story.client.at("198.51.100.7"), "d@example.com").await, 201);
    assert_eq!(story.number(BONUSES).await, 9, "the next day");
    story.workers.prune().await;
    assert_eq!(
        story.number("SELECT count(*) FROM auth.bonus_networks").await,
        1,
        "yesterday's are forgotten"
    );
    books_are_true(&story).await;
}

#[tokio::test]
async fn an_account_that_its_network_kept_from_the_bonus_has_not_used_its_mailbox_up() {
    let story = Story::with(|settings| {
        settings.rate_limit_max = 1_000_000;
        settings.credits_bonuses_per_network = 1;
    })
    .await;
    let first = story.client.at("198.51.100.1");
    assert_eq!(register(&first, "ada@example.com").await, 201);
    assert_eq!(register(&first, "grace@example.com").await, 201);
    assert_eq!(register(&story.client.at("203.0.113.1"), "grace+2@example.com").await, 201);
    assert_eq!(story.number(BONUSES).await, 2);
}

#[tokio::test]
async fn disposable_addresses_are_taken_without_the_bonus_or_refused_or_as_any_other() {
    let story = Story::new().await;
    assert_eq!(gets(&story, "ada@mailinator.com").await, 0);
    assert_eq!(gets(&story, "ada@sub.mailinator.com").await, 0);
    assert_eq!(gets(&story, "ada@mailinator.com.example.org").await, 150);

    let strict =
        story.replica_with(|settings| settings.disposable_addresses = DisposableAddresses::Refuse).await;
    let body = json!({"email": "Grace@Mailinator.com", "password": PASSWORD});
    let refused = strict.client.post("/api/v1/auth/register", &body).send().await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "auth.disposable_address"));
    assert_eq!(refused.text("/errors/0/pointer"), "/email");
    assert_eq!(register(&strict.client, "grace@example.com").await, 201);

    let open =
        story.replica_with(|settings| settings.disposable_addresses = DisposableAddresses::Allow).await;
    assert_eq!(register(&open.client, "grace@mailinator.com").await, 201);
    assert_eq!(balance(&story, "grace@mailinator.com").await, 150);
}
