//! What dev mode prints once it runs: for people, before any log line.

use mana_platform::Settings;

/// Commands that work when pasted into a shell: a new account, a sign-in, a spend, and the list with it.
fn walk(url: &str) -> String {
    format!(
        r#"curl -sw "\n" {url}/api/v1/auth/register -H 'Content-Type: application/json' \
  -d '{{"email": "ada@example.com", "password": "correct horse battery"}}'
TOKEN=$(curl -s {url}/api/v1/auth/login -H 'Content-Type: application/json' \
  -d '{{"email": "ada@example.com", "password": "correct horse battery"}}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')
curl -sw "\n" {url}/api/v1/credits/use -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
  -d '{{"amount": 10, "appId": "chat", "description": "A long answer"}}'
curl -sw "\n" {url}/api/v1/credits/balance -H "Authorization: Bearer $TOKEN"
curl -sw "\n" {url}/api/v1/credits/transactions -H "Authorization: Bearer $TOKEN""#
    )
}

/// How to use what has started.
pub(super) fn text(
    settings: &Settings,
    place: &str,
    claim: Option<&str>,
    shows_mails: bool,
    pretends: bool,
) -> String {
    let url = &settings.public_url();
    let mails = if shows_mails {
        // That page answers to names of this machine only, whatever name the service has elsewhere.
        format!("http://localhost:{}/dev/outbox", settings.port)
    } else {
        "are sent to the SMTP server".to_owned()
    };
    let payments = if pretends { "pretended: open the checkoutUrl of a purchase" } else { "at Stripe" };
    let administrator = match claim {
        Some(link) => {
            format!("{url}{link}\n                  (good once, for a day: become the first administrator)")
        }
        None => "there is one".to_owned(),
    };
    format!(
        "\n  Mana Core Auth runs at {url}\n\n  \
         Documentation   {url}/docs\n  \
         Data            {place}\n  \
         Mails           {mails}\n  \
         Payments        {payments}\n  \
         Administrator   {administrator}\n\n  \
         Try it in another terminal:\n\n{}\n\n  \
         Stop with Ctrl-C.\n",
        walk(url)
    )
}
