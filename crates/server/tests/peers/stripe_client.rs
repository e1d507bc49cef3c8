//! Stripe's own client (npm `stripe`) with the Stripe of the tests and of dev mode: what the service's client is tried with is read by two.

use crate::process::free_port;
use crate::till::{WEBHOOK_SECRET, open_till};
use std::path::Path;
use std::process::Command;

#[test]
fn stripes_own_client_sells_refunds_lists_and_hears_at_the_stripe_of_the_tests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deliveries_port = free_port();
    let (_, url) = open_till(&runtime, Some(format!("http://127.0.0.1:{deliveries_port}/deliveries")));
    let port = url.rsplit(':').next().unwrap();

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = root.join("../../target/tools/node/node_modules/stripe/esm/stripe.esm.node.js");
    assert!(module.exists(), "stripe is not there: .ci/run says how it is installed");
    let output = Command::new("node")
        .arg(root.join("tests/peers/stripe_client.mjs"))
        .arg(module)
        .arg(port)
        .arg(deliveries_port.to_string())
        .arg(WEBHOOK_SECRET)
        .output()
        .expect("node is there: .ci/run says how it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
