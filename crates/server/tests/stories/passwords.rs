//! Which passwords nobody may choose, and passwords that other programs have hashed.

use crate::story::{PASSWORD, Story};
use futures_util::future::join_all;
use mana_core_auth::app::BuildError;
use mana_testkit::Reply;
use serde_json::json;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ACCOUNTS: &str = "SELECT count(*) FROM auth.users";
const FOREIGN: &str = "SELECT count(*) FROM auth.imported_passwords";
const OURS: &str = "SELECT count(*) FROM auth.passwords WHERE hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'";

/// All of `PASSWORD`, as other programs hash it.
const HASHES: [(&str, &str); 7] = [
    ("bcrypt:4", "$2b$04$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme"),
    ("scrypt:4:8:1:32", "$scrypt$ln=4,r=8,p=1$c29tZXNhbHQ$6M6zkFAIaE4yOsnJ8bMC/xd/B3BqF4ysOM/NEhAqCic"),
    (
        "scrypt:14:16:1:64",
        "69c34533a8123fe8e3892eb43070f140:ba6b2caa6fa60d486e8b87370a2fb13c1b6872a716b2f1f0c83eeabb891c0fe3e263d01c0f0ff047fde2ac30b51e7ae02f55908529a17adeb3ec48197c64ce38",
    ),
    (
        "pbkdf2-sha256:1000:32",
        "$pbkdf2-sha256$i=1000,l=32$c29tZXNhbHQ$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA",
    ),
    (
        "pbkdf2-sha512:1000:64",
        "$pbkdf2-sha512$1000$c29tZXNhbHQ$d5Y0oQIDEnfiel6v2nlkAfWF.UB.WyFSuhjvW3dmoIcgNoIb05qwEK5RQSDO5DPWOuVKWrvg855eZSC.E65tfw",
    ),
    ("pbkdf2-sha1:1000:20", "$pbkdf2$1000$c29tZXNhbHQ$R45Y8zJV.CEzHuPZQfpgHd3xGw0"),
    ("pbkdf2-sha256:1000:32", "pbkdf2_sha256$1000$somesalt$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA="),
];

async fn register(story: &Story, email: &str, password: &str) -> Reply {
    story.post("/api/v1/auth/register", &json!({"email": email, "password": password})).await
}

async fn log_in(story: &Story, email: &str, password: &str) -> Reply {
    story.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

/// Refused for this reason, which a person is told.
async fn refuses(story: &Story, email: &str, password: &str, code: &str) {
    let reply = register(story, email, password).await;
    let seen = (reply.status.as_u16(), reply.problem(), reply.text("/errors/0/code"));
    assert_eq!(seen, (400, "auth.password_refused", code), "{password}: {}", reply.json);
    assert_eq!(reply.text("/errors/0/pointer"), "/password");
    assert!(reply.text("/message").starts_with("The password must "), "{}", reply.json);
    assert!(password == "password" || !reply.json.to_string().contains(password), "{}", reply.json);
}

/// Puts a hash in the place of the account's.
async fn put_hash(story: &Story, email: &str, scheme: &str, hash: &str) {
    let mut owner = story.database.owner().await;
    for sql in [
        "UPDATE auth.passwords SET hash = $3 FROM auth.users WHERE id = user_id AND email = $1 AND $2 <> ''",
        "INSERT INTO auth.imported_passwords (user_id, scheme) SELECT id, $2 FROM auth.users WHERE email = $1 AND $3 <> ''",
    ] {
        sqlx::query(sql).bind(email).bind(scheme).bind(hash).execute(&mut owner).await.unwrap();
    }
}

#[tokio::test]
async fn the_commonest_passwords_are_refused_in_any_spelling_and_others_are_not() {
    let story = Story::new().await;
    for common in
        ["password", "Password1", "12345678", "QWERTYUIOP", "iloveyou1", "trustno1", "123456789a", "xxxxxxxx"]
    {
        refuses(&story, "ada@example.org", common, "common").await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    for (email, good) in [("a@example.org", "kq7w zz3v"), ("b@example.org", "it is a password, and mine")] {
        assert_eq!(register(&story, email, good).await.status, 201, "{good}");
    }
}

#[tokio::test]
async fn names_of_the_product_and_the_own_address_are_no_passwords() {
    let story = Story::new().await;
    let ada = "ada.lovelace@analytical-engine.example";
    for product in ["manacore", "ManaCore2026!", "mana-core", "M A N A 1234", "mana core auth"] {
        refuses(&story, ada, product, "product_name").await;
    }
    for own in [ada, "Ada.Lovelace", "lovelace1815", "Analytical-Engine", "ada@lovelace", "mana-lovelace"] {
        refuses(&story, ada, own, "own_address").await;
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    let other = register(&story, "grace@example.org", "lovelace-1815").await;
    assert_eq!(other.status, 201, "somebody else's name: {}", other.json);

    let renamed =
        story.replica_with(|settings| settings.password_product_names = vec!["Orchard".into()]).await;
    for (password, status) in [("orchard-99", 400), ("manacore-99", 201)] {
        let body = json!({"email": "b@example.org", "password": password});
        assert_eq!(
            renamed.client.post("/api/v1/auth/register", &body).send().await.status,
            status,
            "{password}"
        );
    }
}

#[tokio::test]
async fn the_first_administrator_s_password_meets_the_same_rules() {
    let story = Story::new().await;
    let link = story.claim_link().await.unwrap();
    let token = link.split_once("token=").unwrap().1;
    let submit = |password: &str| {
        let body = format!("token={token}&email=root%40example.org&password={password}");
        let request = story.client.request(http::Method::POST, "/claim-admin");
        request.body("application/x-www-form-urlencoded", body).send()
    };
    for (password, reason) in
        [("Password1", "commonest"), ("manacore2026", "product"), ("root%40example.org", "address")]
    {
        let refused = submit(password).await;
        let html = String::from_utf8_lossy(&refused.bytes);
        assert!(refused.status == 400 && html.contains(reason), "{password}: {html}");
    }
    assert_eq!(story.number(ACCOUNTS).await, 0);
    assert_eq!(submit("correct+horse+battery").await.status, 200);
}

#[tokio::test]
async fn the_operator_s_list_holds_beside_the_bundled_one_and_one_that_can_t_be_read_starts_no_server() {
    let story = Story::new().await;
    assert_eq!(
        register(&story, "before@example.org", "purple walrus").await.status,
        201,
        "in no list so far"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // `purple walrus`, and `green walrus` as lists of breached passwords have it.
    writeln!(file, "Purple Walrus\n51660AA58C5E368E685403B4DB39BB414F66B1C6:3").unwrap();
    let path = file.path().to_owned();
    let replica = story.replica_with(|settings| settings.password_blocklist_file = Some(path)).await;
    for (password, status) in [
        ("purple walrus", 400),
        ("PURPLE walrus", 400),
        ("password", 400),
        ("green walrus", 400),
        ("GREEN Walrus", 400),
        ("yellow walrus", 201),
    ] {
        let body = json!({"email": "ada@example.org", "password": password});
        let reply = replica.client.post("/api/v1/auth/register", &body).send().await;
        assert_eq!(reply.status, status, "{password}: {}", reply.json);
    }
    let absent = story.start(
        |settings| settings.password_blocklist_file = Some("/nowhere/list".into()),
        story.root_secret(),
    );
    match absent.await {
        Err(BuildError::Blocklist(error)) => assert!(error.to_string().contains("/nowhere/list"), "{error}"),
        other => panic!("{:?}", other.err()),
    }
}

/// A service of breached passwords, which knows one; what it is asked is kept. Without an answer, it is silent.
struct RangeService {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl RangeService {
    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/range/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let read = connection.read(&mut request).await.unwrap();
                heard.lock().unwrap().push(String::from_utf8_lossy(&request[..read]).into_owned());
                match answer {
                    Some(answer) => connection.write_all(answer.as_bytes()).await.unwrap(),
                    None => silent.push(connection),
                }
            }
        });
        Self { url, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for RangeService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The SHA-1 of `kq7w zz3v xp1m` without its first five digits, among others.
const KNOWS_ONE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    0018A45C4D1DEF81644B54AB7F969B88D65:10\r\n46EEBAF96AEAFE76DBAF27D02AAA457D4DD:7\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0\r\n";

fn asking(
    story: &Story,
    service: &RangeService,
    wait_ms: u64,
) -> impl Future<Output = crate::story::Replica> {
    let url = service.url.parse().unwrap();
    story.replica_with(move |settings| {
        settings.password_range_url = Some(url);
        settings.password_range_wait_ms = wait_ms;
    })
}

#[tokio::test]
async fn a_service_of_breached_passwords_learns_five_digits_and_its_word_counts() {
    let story = Story::new().await;
    let service = RangeService::start(Some(KNOWS_ONE)).await;
    let replica = asking(&story, &service, 10_000).await;
    let body = |password: &str| json!({"email": "ada@example.org", "password": password});
    let refused = replica.client.post("/api/v1/auth/register", &body("kq7w zz3v xp1m")).send().await;
    assert_eq!(
        (refused.status.as_u16(), refused.text("/errors/0/code")),
        (400, "breached"),
        "{}",
        refused.json
    );
    let taken = replica.client.post("/api/v1/auth/register", &body(PASSWORD)).send().await;
    assert_eq!(taken.status, 201, "{}", taken.json);

    let asked = service.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].starts_with("GET /range/AF421 HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked.iter().all(|request| request.to_lowercase().contains("add-padding: true")));
    assert!(
        !asked.concat().contains("46EEBAF96AEAFE76DBAF27D02AAA457D4DD") && !asked.concat().contains("kq7w"),
        "{asked:?}"
    );
    let bundled = replica.client.post("/api/v1/auth/register", &body("password1")).send().await;
    assert_eq!(bundled.text("/errors/0/code"), "common");
    assert_eq!(service.asked().len(), 2, "what is known here is not asked");
}

#[tokio::test]
async fn a_service_that_is_silent_fails_or_is_gone_keeps_nobody_out_and_the_bundled_list_holds() {
    let story = Story::new().await;
    let services = [
        RangeService::start(None).await,
        RangeService::start(Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")).await,
        RangeService::start(Some(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        ))
        .await,
        RangeService::start(Some("nonsense")).await,
        RangeService::start(Some("")).await,
    ];
    services[4].task.abort();
    for (number, service) in services.iter().enumerate() {
        let replica = asking(&story, service, 50).await;
        for (password, status) in [("password1", 400), (PASSWORD, 201)] {
            let body = json!({"email": format!("user{number}@example.org"), "password": password});
            let reply = replica.client.post("/api/v1/auth/register", &body).send();
            let reply = tokio::time::timeout(Duration::from_secs(30), reply).await.unwrap();
            assert_eq!(reply.status, status, "{number}: {}", reply.json);
        }
    }
}

#[tokio::test]
async fn passwords_that_other_programs_hashed_sign_in_and_are_hashed_anew() {
    let story = Story::with(|settings| settings.sign_in_free_failures = 1000).await;
    for (number, (scheme, hash)) in HASHES.into_iter().enumerate() {
        let email = format!("user{number}@example.org");
        story.register(&email).await;
        put_hash(&story, &email, scheme, hash).await;
        assert_eq!(story.number(FOREIGN).await, 1, "{scheme}");
        assert_eq!(log_in(&story, &email, "correct horse batterz").await.status, 401, "{scheme}");
        assert_eq!(story.number(FOREIGN).await, 1, "a wrong password changes nothing");
        assert_eq!(log_in(&story, &email, PASSWORD).await.status, 200, "{scheme}");
        assert_eq!(story.number(FOREIGN).await, 0, "{scheme}");
        assert_eq!(log_in(&story, &email, PASSWORD).await.status, 200, "{scheme}, hashed anew");
        assert_eq!(
            log_in(&story, &email, "correct horse batterz").await.status,
            401,
            "{scheme}, hashed anew"
        );
    }
    assert_eq!(story.number(OURS).await, 7);
}

#[tokio::test]
async fn a_hash_that_costs_less_than_today_s_is_hashed_anew() {
    let story = Story::new().await;
    story.register("ada@example.org").await;
    let weak = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    put_hash(&story, "ada@example.org", "argon2id:256:2:1:32", weak).await;
    assert_eq!(story.number(OURS).await, 0);
    assert_eq!(log_in(&story, "ada@example.org", "password").await.status, 200, "old passwords are let in");
    assert_eq!(story.number(OURS).await, 1);
    assert_eq!(log_in(&story, "ada@example.org", "password").await.status, 200);
}

#[tokio::test]
async fn ten_sign_ins_at_once_of_an_imported_account_all_succeed() {
    let story = Story::new().await;
    story.register("ada@example.org").await;
    put_hash(&story, "ada@example.org", HASHES[0].0, HASHES[0].1).await;
    let replica = story.replica().await;
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    let replies = join_all((0..10).map(|number| {
        let client = if number % 2 == 0 { &story.client } else { &replica };
        client.post("/api/v1/auth/login", &body).send()
    }));
    for reply in replies.await {
        assert_eq!(reply.status, 200, "{}", reply.json);
    }
    assert_eq!((story.number(OURS).await, story.number(FOREIGN).await), (1, 0));
}

#[tokio::test]
async fn of_a_password_that_bcrypt_had_cut_every_byte_counts_after_the_first_sign_in() {
    let story = Story::with(|settings| settings.sign_in_free_failures = 1000).await;
    story.register("ada@example.org").await;
    let eighty = "$2b$04$veNqkfFvV2HS8EuyNIAyjucx8e3w1jSTqy8zrWAfJV9qBNEm7ov/6";
    put_hash(&story, "ada@example.org", "bcrypt:4", eighty).await;
    assert_eq!(log_in(&story, "ada@example.org", &"x".repeat(71)).await.status, 401);
    assert_eq!(log_in(&story, "ada@example.org", &"x".repeat(80)).await.status, 200);
    for length in [72, 79, 81] {
        assert_eq!(log_in(&story, "ada@example.org", &"x".repeat(length)).await.status, 401, "{length}");
    }
    assert_eq!(log_in(&story, "ada@example.org", &"x".repeat(80)).await.status, 200);
}

#[tokio::test]
async fn a_stored_hash_of_absurd_cost_verifies_nothing_and_keeps_nobody_waiting() {
    let story = Story::with(|settings| settings.sign_in_free_failures = 1000).await;
    story.register("ada@example.org").await;
    story.register("grace@example.org").await;
    for absurd in [
        "$argon2id$v=19$m=4194304,t=4000000,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$2b$31$FZwntQykG8CKGnPOP0ttTOtiXwb2NbZaXer9a3qd0uM28x8dH9eme",
        "$scrypt$ln=30,r=8,p=1$c29tZXNhbHQ$6M6zkFAIaE4yOsnJ8bMC/xd/B3BqF4ysOM/NEhAqCic",
        "pbkdf2_sha256$4000000000$somesalt$K5SAHVwQoz0J3yvOytAOiRUeGU14G3lS2KOx1HL3NxA=",
        "",
        "no hash",
    ] {
        let mut owner = story.database.owner().await;
        sqlx::query("UPDATE auth.passwords SET hash = $1 FROM auth.users WHERE id = user_id AND email = 'ada@example.org'")
            .bind(absurd)
            .execute(&mut owner)
            .await
            .unwrap();
        let refused = log_in(&story, "ada@example.org", PASSWORD).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (401, "auth.invalid_credentials"),
            "{absurd}"
        );
        assert_eq!(log_in(&story, "grace@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a_wrong_password_of_an_imported_account_reads_as_that_of_any_other_and_of_none() {
    let story = Story::new().await;
    for (email, place) in
        [("ours@example.org", None), ("imported@example.org", Some(0)), ("auth@example.org", Some(2))]
    {
        story.register(email).await;
        if let Some(place) = place {
            let (scheme, hash): (&str, &str) = HASHES[place];
            put_hash(&story, email, scheme, hash).await;
        }
    }
    let mut seen = Vec::new();
    for email in ["ours@example.org", "imported@example.org", "auth@example.org", "nobody@example.org"] {
        let reply = log_in(&story, email, "not the password").await;
        let mut json = reply.json.clone();
        json["instance"] = json!(null);
        let names: Vec<_> = reply.headers.keys().map(|name| name.as_str().to_owned()).collect();
        seen.push((reply.status, json, names));
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
    assert_eq!(seen[0].0, 401);
}
