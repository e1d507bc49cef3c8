//! The objects, and what happens to them.

use crate::deliver::Knobs;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What somebody does at the till.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Pays at once; or the money that was on its way arrives.
    Pay,
    /// The card is declined; or the money that was on its way does not come.
    Fail,
    /// Pays by a way that takes days.
    Later,
}

/// Why a call is refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) parameter: Option<String>,
    /// What a card's refusal is about, and the bank's word for it.
    pub(crate) declined: Option<Box<(Value, String)>>,
}

impl Refused {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code,
            message: message.into(),
            parameter: None,
            declined: None,
        }
    }

    pub(crate) fn about(parameter: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self { parameter: Some(parameter.to_owned()), ..Self::new(400, code, message) }
    }

    pub(crate) fn missing(id: &str) -> Self {
        Self::new(404, "resource_missing", format!("No such object: '{id}'"))
    }
}

/// An answer under an idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) since: i64,
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Answers are given again for so many seconds: a day.
const KEYS_ARE_KEPT: i64 = 86_400;

/// Everything that this Stripe knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    objects: Vec<Value>,
    pub(crate) waiting: Vec<Value>,
    pub(crate) knobs: Knobs,
    pub(crate) kept: HashMap<String, Kept>,
    pub(crate) is_broken: bool,
    /// Ends of the paths of calls whose answers are lost.
    pub(crate) loses: Option<&'static str>,
    /// End of the path, status and code of calls that are refused.
    pub(crate) refuses: Option<(String, u16, &'static str)>,
    pub(crate) calls: Vec<String>,
}

/// The fields of a form, by Stripe's names.
pub(crate) type Fields = HashMap<String, String>;

impl State {
    /// The refusal of a call, if it is one that is refused.
    pub(crate) fn refusal(&self, path: &str) -> Option<Refused> {
        let refused = self.refuses.as_ref().filter(|(end, ..)| path.ends_with(end));
        refused.map(|(_, status, code)| Refused::new(*status, code, "Refused"))
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["id"] == id)
    }

    fn get(&mut self, id: &str) -> Result<&mut Value, String> {
        let found = self.objects.iter_mut().find(|object| object["id"] == id);
        found.ok_or_else(|| format!("there is no {id}"))
    }

    pub(crate) fn tamper(&mut self, id: &str, change: impl FnOnce(&mut Value)) {
        if let Ok(object) = self.get(id) {
            change(object);
        }
    }

    /// Objects of a sort, the newest first.
    pub(crate) fn list<'a>(&'a self, object: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().rev().filter(move |value| value["object"] == object)
    }

    /// What was answered under a key, if that is not too long ago.
    pub(crate) fn kept(&mut self, key: &str, now: i64) -> Option<&Kept> {
        self.kept.retain(|_, kept| now.saturating_sub(kept.since) < KEYS_ARE_KEPT);
        self.kept.get(key)
    }

    /// A session, its payment, and what is about that.
    pub(crate) fn objects_of(&self, session: &str) -> Vec<Value> {
        let payment = self.find(session).and_then(|session| session["payment_intent"].as_str());
        let is_of = |object: &&Value| {
            let named = [&object["id"], &object["payment_intent"]];
            object["id"] == session
                || payment.is_some_and(|payment| named.iter().any(|name| **name == payment))
        };
        self.objects.iter().filter(is_of).cloned().collect()
    }

    /// Makes them what they were: what came later is not there any more.
    pub(crate) fn put_back(&mut self, session: &str, objects: &[Value]) {
        let gone = self.objects_of(session);
        self.objects.retain(|object| !gone.iter().any(|gone| gone["id"] == object["id"]));
        self.objects.extend_from_slice(objects);
    }

    fn add(&mut self, object: Value) -> Value {
        self.objects.push(object.clone());
        object
    }

    /// One that has nothing to do with those of the service.
    pub(crate) fn add_foreign(&mut self, mut object: Value) {
        object["id"] = json!(new_id("foreign"));
        for name in ["metadata", "client_reference_id", "payment_intent"] {
            object[name] = Value::Null;
        }
        self.objects.push(object);
    }

    fn tell(&mut self, kind: &str, id: &str, now: i64) {
        let Some(object) = self.find(id).cloned() else { return };
        let event = json!({
            "id": new_id("evt"),
            "object": "event",
            "api_version": "2024-06-20",
            "created": now,
            "data": {"object": object},
            "livemode": object.get("livemode").cloned().unwrap_or(json!(false)),
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": kind,
        });
        self.waiting.push(event.clone());
        self.objects.push(event);
    }

    pub(crate) fn create_customer(&mut self, fields: &Fields, is_live: bool, now: i64) -> Value {
        self.add(json!({
            "id": new_id("cus"), "object": "customer", "created": now, "email": fields.get("email"),
            "livemode": is_live, "metadata": metadata(fields, "metadata"),
        }))
    }

    pub(crate) fn create_session(
        &mut self,
        fields: &Fields,
        url: &str,
        is_live: bool,
        now: i64,
    ) -> Result<Value, Refused> {
        let field = |name: &str| fields.get(name).map(String::as_str);
        let need = |name: &str| {
            field(name).ok_or_else(|| {
                Refused::about(name, "parameter_missing", format!("Missing required param: {name}."))
            })
        };
        let is_setup = match need("mode")? {
            "payment" => false,
            "setup" => true,
            _ => {
                return Err(Refused::about(
                    "mode",
                    "parameter_invalid_string",
                    "This Stripe knows payments and setups only.",
                ));
            }
        };
        if let Some(customer) = field("customer")
            && self.find(customer).is_none()
        {
            let message = format!("No such customer: '{customer}'");
            return Err(Refused {
                parameter: Some("customer".to_owned()),
                ..Refused::new(400, "resource_missing", message)
            });
        }
        let is_embedded = matches!(field("ui_mode"), Some("embedded"));
        need(if is_embedded { "return_url" } else { "success_url" })?;
        if is_setup {
            return Ok(self.create_setup_session(fields, url, is_live, now));
        }
        let is_taxed = field("automatic_tax[enabled]") == Some("true");
        if is_taxed && field("customer").is_some() && field("customer_update[address]") != Some("auto") {
            let message = "Automatic tax calculation in Checkout requires a valid address on the Customer, or `customer_update[address]` set to `auto`.";
            return Err(Refused::new(400, "customer_tax_location_invalid", message));
        }
        let amount_name = "line_items[0][price_data][unit_amount]";
        let (amount, currency) = match field("line_items[0][price]") {
            // A price's name tells what it is: price_eur_500.
            Some(price) if price.ends_with("_gone") => {
                return Err(Refused::about(
                    "line_items[0][price]",
                    "resource_missing",
                    format!("No such price: '{price}'"),
                ));
            }
            Some(price) => {
                let mut parts = price.split('_').skip(1);
                let currency = parts.next().unwrap_or_default().to_owned();
                (parts.next().and_then(|amount| amount.parse().ok()), currency)
            }
            None => (
                need(amount_name)?.parse::<i64>().ok(),
                need("line_items[0][price_data][currency]")?.to_owned(),
            ),
        };
        let quantity = need("line_items[0][quantity]")?.parse::<i64>().ok().filter(|quantity| *quantity > 0);
        let total = amount.zip(quantity).and_then(|(amount, quantity)| amount.checked_mul(quantity));
        let total = total.filter(|total| (50..=99_999_999).contains(total)).ok_or_else(|| {
            Refused::about(amount_name, "amount_too_small", "The total must be 50 cents to 999,999.99.")
        })?;
        let expires_at = field("expires_at").and_then(|at| at.parse::<i64>().ok());
        let expires_at = expires_at.unwrap_or_else(|| now.saturating_add(86_400));
        if !(now.saturating_add(1_790)..=now.saturating_add(86_460)).contains(&expires_at) {
            return Err(Refused::about(
                "expires_at",
                "parameter_invalid_integer",
                "The `expires_at` timestamp must be 30 minutes to 24 hours from Checkout Session creation.",
            ));
        }
        let id = new_id(if is_live { "cs_live" } else { "cs_test" });
        let filled = |name: &str| field(name).map(|url| url.replace("{CHECKOUT_SESSION_ID}", &id));
        let session = json!({
            "id": id, "object": "checkout.session",
            "amount_subtotal": total, "amount_total": total, "currency": currency, "customer_details": null,
            "automatic_tax": {"enabled": is_taxed, "liability": null, "status": is_taxed.then_some("requires_location_inputs")},
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "setup_intent": null,
            "cancel_url": filled("cancel_url"), "success_url": filled("success_url"), "return_url": filled("return_url"),
            "client_reference_id": field("client_reference_id"),
            "client_secret": is_embedded.then(|| format!("{id}_secret_{}", new_id("x"))),
            "created": now, "customer": field("customer"), "expires_at": expires_at, "livemode": is_live,
            "metadata": metadata(fields, "metadata"), "mode": "payment", "payment_intent": null,
            "payment_method_types": ["card"], "payment_status": "unpaid", "status": "open",
            "ui_mode": if is_embedded { "embedded" } else { "hosted" },
            "url": (!is_embedded).then(|| format!("{url}/pay/{id}")),
            // Not shown by Stripe: what the payment will carry.
            "_payment_metadata": metadata(fields, "payment_intent_data[metadata]"),
            "_tax_behavior": field("line_items[0][price_data][tax_behavior]"),
        });
        Ok(self.add(session))
    }

    /// A session at which a card is saved and nothing is paid.
    fn create_setup_session(&mut self, fields: &Fields, url: &str, is_live: bool, now: i64) -> Value {
        let field = |name: &str| fields.get(name).map(String::as_str);
        let id = new_id(if is_live { "cs_live" } else { "cs_test" });
        let filled = |name: &str| field(name).map(|url| url.replace("{CHECKOUT_SESSION_ID}", &id));
        let intent = new_id("seti");
        self.add(json!({
            "id": intent, "object": "setup_intent", "created": now, "customer": field("customer"), "livemode": is_live,
            "metadata": metadata(fields, "setup_intent_data[metadata]"), "payment_method": null, "payment_method_types": ["card"],
            "status": "requires_payment_method", "usage": "off_session",
        }));
        let session = json!({
            "id": id, "object": "checkout.session", "amount_subtotal": null, "amount_total": null, "currency": null,
            "cancel_url": filled("cancel_url"), "success_url": filled("success_url"), "client_reference_id": field("client_reference_id"),
            "client_secret": null, "created": now, "customer": field("customer"), "customer_details": null,
            "expires_at": now.saturating_add(86_400), "livemode": is_live, "metadata": metadata(fields, "metadata"), "mode": "setup",
            "payment_intent": null, "payment_method_types": ["card"], "payment_status": "no_payment_required", "setup_intent": intent,
            "status": "open", "ui_mode": "hosted", "url": format!("{url}/pay/{id}"),
        });
        self.add(session)
    }

    /// A card is saved for its customer, or declined.
    fn act_on_setup(&mut self, session: &Value, outcome: Outcome, now: i64) -> Result<Value, String> {
        let id = session["id"].as_str().unwrap_or_default().to_owned();
        let intent = session["setup_intent"].as_str().unwrap_or_default().to_owned();
        if outcome == Outcome::Pay {
            let card = new_id("pm");
            self.add(json!({
                "id": card, "object": "payment_method", "type": "card", "created": now, "customer": session["customer"],
                "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2040}, "livemode": session["livemode"],
            }));
            let setup = self.get(&intent)?;
            setup["status"] = json!("succeeded");
            setup["payment_method"] = json!(card);
            let found = self.get(&id)?;
            found["status"] = json!("complete");
            found["url"] = Value::Null;
            self.tell("setup_intent.succeeded", &intent, now);
            self.tell("checkout.session.completed", &id, now);
        } else {
            self.tell("setup_intent.setup_failed", &intent, now);
        }
        Ok(self.get(&id)?.clone())
    }

    /// What the payer tells at the till, and the tax that follows from it: 19 percent, whoever it is.
    fn tell_payer(&mut self, session: &str) -> Result<(), String> {
        let found = self.get(session)?;
        found["customer_details"] = json!({
            "address": {"city": "Konstanz", "country": "DE", "line1": "Seestr. 1", "line2": null, "postal_code": "78462", "state": null},
            "email": "payer@example.com", "name": "Petra Payer", "phone": null, "tax_exempt": "none", "tax_ids": [],
        });
        if found["automatic_tax"]["enabled"] == true {
            let subtotal = found["amount_subtotal"].as_i64().unwrap_or_default();
            let is_inclusive = found["_tax_behavior"] == "inclusive";
            let of = if is_inclusive { 119 } else { 100 };
            let tax = subtotal.saturating_mul(19).saturating_add(of / 2).checked_div(of).unwrap_or_default();
            let total = if is_inclusive { subtotal } else { subtotal.saturating_add(tax) };
            found["automatic_tax"]["status"] = json!("complete");
            found["total_details"]["amount_tax"] = json!(tax);
            found["amount_total"] = json!(total);
        }
        Ok(())
    }

    /// A payment that nobody is at a till for.
    pub(crate) fn create_payment(
        &mut self,
        fields: &Fields,
        is_live: bool,
        now: i64,
    ) -> Result<Value, Refused> {
        let field = |name: &str| fields.get(name).map(String::as_str);
        let need = |name: &str| {
            field(name).ok_or_else(|| {
                Refused::about(name, "parameter_missing", format!("Missing required param: {name}."))
            })
        };
        let amount = need("amount")?.parse::<i64>().ok().filter(|amount| (50..=99_999_999).contains(amount));
        let amount = amount.ok_or_else(|| {
            Refused::about("amount", "amount_too_small", "The amount must be 50 cents to 999,999.99.")
        })?;
        let currency = need("currency")?.to_owned();
        if let Some(customer) = field("customer")
            && self.find(customer).is_none()
        {
            return Err(Refused::about(
                "customer",
                "resource_missing",
                format!("No such customer: '{customer}'"),
            ));
        }
        let id = new_id("pi");
        let made = self.add(json!({
            "id": id, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_received": 0,
            "capture_method": "automatic_async", "client_secret": format!("{id}_secret"), "created": now, "currency": currency,
            "customer": field("customer"), "last_payment_error": null, "latest_charge": null, "livemode": is_live,
            "metadata": metadata(fields, "metadata"), "payment_method": null, "payment_method_types": ["card"],
            "status": "requires_payment_method",
        }));
        self.tell("payment_intent.created", &id, now);
        Ok(made)
    }

    /// Has a payment charged to a saved card.
    pub(crate) fn confirm(&mut self, payment: &str, fields: &Fields, now: i64) -> Result<Value, Refused> {
        let intent = self.find(payment).filter(|found| found["object"] == "payment_intent").cloned();
        let intent = intent.ok_or_else(|| Refused::missing(payment))?;
        let state = intent["status"].as_str().unwrap_or_default().to_owned();
        if !matches!(state.as_str(), "requires_payment_method" | "requires_confirmation") {
            let message =
                format!("You cannot confirm this PaymentIntent because it has a status of {state}.");
            return Err(Refused::new(400, "payment_intent_unexpected_state", message));
        }
        let name = fields.get("payment_method").map(String::as_str).unwrap_or_default();
        let card = self.find(name).filter(|card| {
            card["object"] == "payment_method"
                && !card["customer"].is_null()
                && card["customer"] == intent["customer"]
        });
        let card = card.cloned().ok_or_else(|| {
            Refused::about("payment_method", "resource_missing", format!("No such PaymentMethod: '{name}'"))
        })?;
        let failed = |message: String| Refused::new(500, "internal", message);
        if let Some(word) = card["_declines_with"].as_str() {
            let needs_payer = word == "authentication_required";
            let code = if needs_payer { "authentication_required" } else { "card_declined" };
            let intent = self.get(payment).map_err(failed)?;
            intent["last_payment_error"] = json!({"code": code, "decline_code": word, "type": "card_error"});
            let intent = intent.clone();
            self.tell("payment_intent.payment_failed", payment, now);
            return Err(Refused {
                kind: "card_error",
                declined: Some(Box::new((intent, word.to_owned()))),
                ..Refused::new(402, code, "Your card was declined.")
            });
        }
        self.get(payment).map_err(failed)?["payment_method"] = json!(name);
        let charge = self.add_charge(payment, now).map_err(failed)?;
        self.tell("charge.succeeded", &charge, now);
        self.tell("payment_intent.succeeded", payment, now);
        self.get(payment).map_err(failed).cloned()
    }

    /// Ends a payment that is not charged.
    pub(crate) fn cancel(&mut self, payment: &str, now: i64) -> Result<Value, Refused> {
        let intent = self.get(payment).map_err(|_| Refused::missing(payment))?;
        let state = intent["status"].as_str().unwrap_or_default().to_owned();
        if !matches!(state.as_str(), "requires_payment_method" | "requires_confirmation" | "requires_action")
        {
            let message = format!("You cannot cancel this PaymentIntent because it has a status of {state}.");
            return Err(Refused::new(400, "payment_intent_unexpected_state", message));
        }
        intent["status"] = json!("canceled");
        intent["canceled_at"] = json!(now);
        let canceled = intent.clone();
        self.tell("payment_intent.canceled", payment, now);
        Ok(canceled)
    }

    /// Takes a saved card from its customer, who can't be charged with it any more.
    pub(crate) fn detach(&mut self, card: &str, now: i64) -> Result<Value, Refused> {
        let found = self.get(card).map_err(|_| Refused::missing(card))?;
        if found["customer"].is_null() {
            let message =
                "The payment method you provided is not attached to a customer so detachment is impossible.";
            return Err(Refused::new(400, "payment_method_not_attached", message));
        }
        found["customer"] = Value::Null;
        let detached = found.clone();
        self.tell("payment_method.detached", card, now);
        Ok(detached)
    }

    /// A customer is deleted in the dashboard, with the cards.
    pub(crate) fn delete_customer(&mut self, customer: &str) -> Result<(), String> {
        self.get(customer)?;
        self.objects.retain(|object| object["id"] != customer);
        for card in &mut self.objects {
            if card["object"] == "payment_method" && card["customer"] == customer {
                card["customer"] = Value::Null;
            }
        }
        Ok(())
    }

    /// The session afterwards.
    pub(crate) fn act(&mut self, session: &str, outcome: Outcome, now: i64) -> Result<Value, String> {
        let found = self.get(session)?.clone();
        let is_open = found["status"] == "open";
        if found["mode"] == "setup" && is_open {
            return self.act_on_setup(&found, outcome, now);
        }
        if is_open {
            self.tell_payer(session)?;
        }
        let found = self.get(session)?.clone();
        let is_waiting = found["status"] == "complete" && found["payment_status"] == "unpaid";
        if !is_open && !is_waiting {
            return Err("this session is over".to_owned());
        }
        let payment = match found["payment_intent"].as_str() {
            Some(payment) => payment.to_owned(),
            None => self.add_payment(&found, now),
        };
        self.get(session)?["payment_intent"] = json!(payment);
        match outcome {
            Outcome::Pay => {
                let charge = self.add_charge(&payment, now)?;
                let session_object = self.get(session)?;
                session_object["status"] = json!("complete");
                session_object["payment_status"] = json!("paid");
                session_object["url"] = Value::Null;
                self.tell("charge.succeeded", &charge, now);
                self.tell("payment_intent.succeeded", &payment, now);
                let kind = if is_open { "completed" } else { "async_payment_succeeded" };
                self.tell(&format!("checkout.session.{kind}"), session, now);
            }
            Outcome::Fail => {
                let intent = self.get(&payment)?;
                intent["status"] = json!("requires_payment_method");
                intent["last_payment_error"] =
                    json!({"code": "card_declined", "decline_code": "generic_decline", "type": "card_error"});
                self.tell("payment_intent.payment_failed", &payment, now);
                // At an open till there may be another card.
                if is_waiting {
                    self.tell("checkout.session.async_payment_failed", session, now);
                }
            }
            Outcome::Later => {
                self.get(&payment)?["status"] = json!("processing");
                let session_object = self.get(session)?;
                session_object["status"] = json!("complete");
                session_object["url"] = Value::Null;
                self.tell("payment_intent.processing", &payment, now);
                self.tell("checkout.session.completed", session, now);
            }
        }
        Ok(self.get(session)?.clone())
    }

    fn add_payment(&mut self, session: &Value, now: i64) -> String {
        let id = new_id("pi");
        self.add(json!({
            "id": id, "object": "payment_intent", "amount": session["amount_total"], "amount_capturable": 0, "amount_received": 0,
            "capture_method": "automatic_async", "client_secret": format!("{id}_secret"), "created": now,
            "currency": session["currency"], "customer": session["customer"], "last_payment_error": null, "latest_charge": null,
            "livemode": session["livemode"], "metadata": session["_payment_metadata"], "payment_method_types": ["card"],
            "status": "requires_payment_method",
        }));
        self.tell("payment_intent.created", &id, now);
        id
    }

    fn add_charge(&mut self, payment: &str, now: i64) -> Result<String, String> {
        let id = new_id("ch");
        let intent = self.get(payment)?;
        intent["status"] = json!("succeeded");
        intent["amount_received"] = intent["amount"].clone();
        intent["latest_charge"] = json!(id);
        intent["last_payment_error"] = Value::Null;
        let charge = json!({
            "id": id, "object": "charge", "amount": intent["amount"], "amount_captured": intent["amount"], "amount_refunded": 0,
            "captured": true, "created": now, "currency": intent["currency"], "customer": intent["customer"], "disputed": false,
            "livemode": intent["livemode"], "metadata": intent["metadata"], "paid": true, "payment_intent": payment,
            "refunded": false, "status": "succeeded",
        });
        self.add(charge);
        Ok(id)
    }

    pub(crate) fn expire(&mut self, session: &str, now: i64) -> Result<(), String> {
        let found = self.get(session)?;
        if found["status"] != "open" {
            return Err("this session is not open".to_owned());
        }
        found["status"] = json!("expired");
        found["url"] = Value::Null;
        self.tell("checkout.session.expired", session, now);
        Ok(())
    }

    /// The same, by whoever sells.
    pub(crate) fn expire_by_call(&mut self, session: &str, now: i64) -> Result<Value, Refused> {
        self.find(session).ok_or_else(|| Refused::missing(session))?;
        self.expire(session, now).map_err(|_| {
            Refused::new(
                400,
                "invalid_request_error",
                "Only Checkout Sessions with a status in [\"open\"] can be expired.",
            )
        })?;
        self.get(session).cloned().map_err(|message| Refused::new(500, "internal", message))
    }

    pub(crate) fn refund(
        &mut self,
        payment: &str,
        amount: Option<i64>,
        metadata: &Value,
        now: i64,
    ) -> Result<Value, Refused> {
        let intent = self.find(payment).ok_or_else(|| Refused::missing(payment))?;
        let charge = intent["latest_charge"].as_str().unwrap_or_default().to_owned();
        let currency = intent["currency"].clone();
        let found = self.get(&charge).map_err(|_| {
            Refused::about(
                "payment_intent",
                "payment_intent_unexpected_state",
                "This payment has no successful charge to refund.",
            )
        })?;
        let number = |name: &str| found[name].as_i64().unwrap_or_default();
        let (refunded, captured) = (number("amount_refunded"), number("amount_captured"));
        let left = captured.saturating_sub(refunded);
        if found["disputed"] == true {
            return Err(Refused::new(400, "charge_disputed", "The charge has been charged back."));
        }
        if left == 0 {
            return Err(Refused::new(
                400,
                "charge_already_refunded",
                "The charge has already been refunded.",
            ));
        }
        let amount = amount.unwrap_or(left);
        if amount < 1 || amount > left {
            return Err(Refused::about(
                "amount",
                "parameter_invalid_integer",
                "The amount is greater than what is left.",
            ));
        }
        found["amount_refunded"] = json!(refunded.saturating_add(amount));
        found["refunded"] = json!(amount == left);
        let id = new_id("re");
        let refund = self.add(json!({
            "id": id, "object": "refund", "amount": amount, "charge": charge, "created": now, "currency": currency,
            "metadata": if metadata.is_object() { metadata.clone() } else { json!({}) }, "payment_intent": payment,
            "reason": null, "status": "succeeded",
        }));
        self.tell("refund.created", &id, now);
        self.tell("charge.refunded", &charge, now);
        Ok(refund)
    }

    pub(crate) fn fail_refund(&mut self, refund: &str, now: i64) -> Result<(), String> {
        let found = self.get(refund)?;
        found["status"] = json!("failed");
        let charge = found["charge"].as_str().unwrap_or_default().to_owned();
        let amount = found["amount"].as_i64().unwrap_or_default();
        let charge = self.get(&charge)?;
        let refunded = charge["amount_refunded"].as_i64().unwrap_or_default();
        charge["amount_refunded"] = json!(refunded.saturating_sub(amount));
        charge["refunded"] = json!(false);
        self.tell("refund.updated", refund, now);
        self.tell("refund.failed", refund, now);
        Ok(())
    }

    pub(crate) fn dispute(
        &mut self,
        payment: &str,
        amount: Option<i64>,
        status: &str,
        now: i64,
    ) -> Result<String, String> {
        let charge = self.get(payment)?["latest_charge"].as_str().unwrap_or_default().to_owned();
        let is_inquiry = status.starts_with("warning");
        let found = self.get(&charge)?;
        found["disputed"] = json!(!is_inquiry);
        let id = new_id("du");
        let dispute = json!({
            "id": id, "object": "dispute", "amount": amount.map_or(found["amount"].clone(), Value::from), "balance_transactions": [],
            "charge": charge, "created": now, "currency": found["currency"], "is_charge_refundable": is_inquiry,
            "livemode": found["livemode"], "metadata": {}, "payment_intent": payment, "reason": "fraudulent", "status": status,
        });
        self.add(dispute);
        self.tell("charge.dispute.created", &id, now);
        if !is_inquiry {
            self.tell("charge.dispute.funds_withdrawn", &id, now);
        }
        Ok(id)
    }

    pub(crate) fn close_dispute(&mut self, dispute: &str, status: &str, now: i64) -> Result<(), String> {
        self.get(dispute)?["status"] = json!(status);
        self.tell("charge.dispute.closed", dispute, now);
        if status == "won" {
            self.tell("charge.dispute.funds_reinstated", dispute, now);
        }
        Ok(())
    }

    pub(crate) fn warn_of_fraud(&mut self, payment: &str, now: i64) -> Result<(), String> {
        let intent = self.get(payment)?;
        let id = new_id("issfr");
        let warning = json!({
            "id": id, "object": "radar.early_fraud_warning", "actionable": true, "charge": intent["latest_charge"], "created": now,
            "fraud_type": "made_with_stolen_card", "livemode": intent["livemode"], "payment_intent": payment,
        });
        self.add(warning);
        self.tell("radar.early_fraud_warning.created", &id, now);
        Ok(())
    }
}

/// The members of `name[...]`.
pub(crate) fn metadata(fields: &Fields, name: &str) -> Value {
    let members: Map<String, Value> = fields
        .iter()
        .filter_map(|(field, value)| {
            let key = field.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((key.to_owned(), json!(value)))
        })
        .collect();
    Value::Object(members)
}

/// What Stripe's ids look like.
#[expect(clippy::disallowed_methods, reason = "this Stripe has ids of its own making")]
fn new_id(prefix: &str) -> String {
    let mut random = [0_u8; 12];
    // Without randomness there would be no second object.
    let _ = getrandom::fill(&mut random);
    random.iter().fold(format!("{prefix}_"), |id, byte| format!("{id}{byte:02x}"))
}
