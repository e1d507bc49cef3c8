//! The browser from within, by its protocol for developers: to act on a page, and to put an authenticator before it.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Long enough for an answer on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A line to a browser. Messages end with a zero.
#[derive(Debug)]
pub(crate) struct Devtools {
    to_browser: ChildStdin,
    from_browser: Receiver<Value>,
    last_id: u32,
}

/// A page of it.
#[derive(Debug)]
pub(crate) struct Page {
    devtools: Devtools,
    session: String,
}

impl Devtools {
    pub(crate) fn new(to_browser: ChildStdin, from_browser: ChildStdout) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for message in BufReader::new(from_browser).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { to_browser, from_browser: receiver, last_id: 0 }
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.last_id = self.last_id.wrapping_add(1);
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.to_browser.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.from_browser.recv_timeout(ANSWER_LIMIT);
            let answer = answer.unwrap_or_else(|_| panic!("the browser does not answer to {message}"));
            if answer["id"] == message["id"] {
                assert!(answer["error"].is_null(), "{message}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Opens a page, with nothing before it.
    pub(crate) fn open(mut self, url: &str) -> Page {
        let target = self.call(None, "Target.createTarget", &json!({"url": url}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call(None, "Target.attachToTarget", &attach);
        let session = session["sessionId"].as_str().unwrap().to_owned();
        Page { devtools: self, session }
    }
}

impl Page {
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.devtools.call(Some(&self.session), method, params)
    }

    /// The value of a script, once its promise is kept; as if the person had clicked.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let params =
            json!({"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", &params);
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }
}
