//! Stripe's own client (npm `stripe`) with the Stripe of the tests and of dev mode: what the service's client is tried with is read by two.

use crate::process::{free_port, listen};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stripe_fake::{Fake, Options};

#[test]
fn stripes_own_client_sells_refunds_lists_and_hears_at_the_stripe_of_the_tests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = listen();
    listener.set_nonblocking(true).unwrap();
    let (port, deliveries_port) = (listener.local_addr().unwrap().port(), free_port());
    #[expect(clippy::disallowed_methods, reason = "the client goes by the machine's clock")]
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let fake = Fake::new(Options {
        url: format!("http://127.0.0.1:{port}"),
        webhook_url: format!("http://127.0.0.1:{deliveries_port}/deliveries").parse().ok(),
        webhook_secret: "whsec_peer".to_owned(),
        now: Arc::new(now),
    });
    runtime.spawn(async move { fake.serve(tokio::net::TcpListener::from_std(listener).unwrap()).await });

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = root.join("../../target/tools/node/node_modules/stripe/esm/stripe.esm.node.js");
    assert!(module.exists(), "stripe is not there: .ci/run says how it is installed");
    let output = Command::new("node")
        .arg(root.join("tests/peers/stripe_client.mjs"))
        .arg(module)
        .arg(port.to_string())
        .arg(deliveries_port.to_string())
        .output()
        .expect("node is there: .ci/run says how it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
