//! What is kept of a delivery: where to look, and nothing of what it says of people.

use crate::stripe::object::{Event, EventName, EventObject, Expandable, Metadata};
use serde_json::{Value, json};

/// What our objects are named by, those of the older service included.
const NAMES: [&str; 3] = ["order_id", "purchaseId", "auto_top_up"];

impl Event {
    /// The event without anything but what finds the order behind it.
    pub(super) fn pointer(&self) -> String {
        let EventObject { id, client_reference_id, metadata, payment_intent } = &self.data.object;
        let named = |metadata: &Metadata| -> Value {
            let ours = NAMES.iter().filter_map(|name| Some((*name, metadata.get(*name)?)));
            ours.map(|(name, value)| (name.to_owned(), json!(value))).collect()
        };
        json!({
            "id": self.id,
            "type": self.r#type,
            "livemode": self.livemode,
            "account": self.account,
            "data": {"object": {
                "id": id,
                "client_reference_id": client_reference_id,
                "metadata": metadata.as_ref().map(named),
                "payment_intent": payment_intent.as_ref().map(Expandable::id),
            }},
        })
        .to_string()
    }
}

/// The same of a delivery. Of one that is not understood, its name.
pub(super) fn pointer_of(body: &str, name: &EventName) -> String {
    match serde_json::from_str::<Event>(body) {
        Ok(event) => event.pointer(),
        Err(_) => json!({"id": name.id, "type": name.r#type}).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_the_order_is_kept_and_nothing_of_the_payer() {
        let event = json!({
            "id": "evt_1", "type": "checkout.session.completed", "livemode": false, "created": 1, "request": {"id": "req_1"},
            "data": {"object": {
                "id": "cs_1", "object": "checkout.session", "client_reference_id": "order", "payment_intent": {"id": "pi_1", "receipt_email": "p@example.com"},
                "metadata": {"order_id": "order", "note": "Petra"},
                "customer_details": {"email": "p@example.com", "name": "Petra Payer", "address": {"line1": "Seestr. 1"}, "tax_ids": [{"value": "DE1"}]},
            }},
        });
        let name: EventName = serde_json::from_value(event.clone()).unwrap();
        let kept = pointer_of(&event.to_string(), &name);
        for secret in ["Petra", "example.com", "Seestr", "DE1", "req_1"] {
            assert!(!kept.contains(secret), "{kept}");
        }
        let read: Event = serde_json::from_str(&kept).unwrap();
        let object = &read.data.object;
        assert_eq!(object.id.as_deref(), Some("cs_1"));
        assert_eq!(object.client_reference_id.as_deref(), Some("order"));
        assert_eq!(object.payment_intent.as_ref().map(Expandable::id), Some("pi_1"));
        assert_eq!(object.metadata.as_ref().unwrap().get("order_id").unwrap(), "order");
        assert_eq!(read.pointer(), kept, "and that is kept as it is");
    }

    #[test]
    fn of_what_is_not_understood_the_name_is_kept() {
        let body = r#"{"id": "evt_2", "type": "charge.of_tomorrow", "data": {"object": {"id": 7, "email": "p@example.com"}}}"#;
        let name: EventName = serde_json::from_str(body).unwrap();
        assert_eq!(pointer_of(body, &name), r#"{"id":"evt_2","type":"charge.of_tomorrow"}"#);
    }
}
