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
    use proptest::prelude::*;

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

    /// Stands in every text that is none of ours.
    const OF_PAYER: &str = "Petra";

    /// What a member may be that this service reads, and what it may be instead.
    fn member(right: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
        let wrong =
            prop_oneof![Just(json!(7)), Just(json!([7, OF_PAYER])), Just(json!({"id": 7, "name": OF_PAYER}))];
        prop_oneof![6 => right, 2 => Just(Value::Null), 1 => wrong]
    }

    fn id() -> impl Strategy<Value = Value> {
        prop_oneof!["[a-z]{2}_[A-Za-z0-9]{0,24}", "[^\u{0}]{0,8}"].prop_map(Value::from)
    }

    fn event() -> impl Strategy<Value = Value> {
        let expandable = prop_oneof![id(), id().prop_map(|id| json!({"id": id, "receipt_email": OF_PAYER}))];
        let names = prop::collection::btree_map("order_id|purchaseId|auto_top_up", "[a-z0-9-]{0,36}", 0..3);
        let others = prop::collection::btree_map("note|name|email", Just(OF_PAYER.to_owned()), 0..3);
        let metadata = (names, others)
            .prop_map(|(names, others)| json!(names.into_iter().chain(others).collect::<Metadata>()));
        let object = (member(id()), member(id()), member(metadata), member(expandable)).prop_map(
            |(id, client_reference_id, metadata, payment_intent)| {
                json!({"id": id, "client_reference_id": client_reference_id, "metadata": metadata, "payment_intent": payment_intent,
                    "customer_details": {"name": OF_PAYER, "tax_ids": [{"value": OF_PAYER}]}, "description": OF_PAYER})
            },
        );
        let kind = r"charge\.refunded|checkout\.session\.completed|invoice\.paid|[a-z.]{0,12}";
        let account = prop_oneof![3 => Just(Value::Null), 1 => Just(json!("acct_1"))];
        ("evt_[A-Za-z0-9]{1,24}", kind, any::<bool>(), account, object, any::<bool>()).prop_map(
            |(id, kind, livemode, account, object, is_whole)| {
                let data = if is_whole { json!({"object": object, "previous_attributes": {"email": OF_PAYER}}) } else { object };
                json!({"id": id, "type": kind, "livemode": livemode, "account": account, "data": data, "request": {"id": OF_PAYER}})
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_kept_names_the_event_finds_the_same_order_and_reads_back_as_itself(event in event()) {
            let body = serde_json::to_string_pretty(&event).unwrap();
            let name: EventName = serde_json::from_str(&body).unwrap();
            let kept = pointer_of(&body, &name);
            prop_assert!(!kept.contains(OF_PAYER), "{kept}");
            let again: EventName = serde_json::from_str(&kept).unwrap();
            prop_assert_eq!((&again.id, &again.r#type), (&name.id, &name.r#type));
            prop_assert_eq!(&pointer_of(&kept, &again), &kept);
            let read = serde_json::from_str::<Event>(&body).ok();
            let read_again = serde_json::from_str::<Event>(&kept).ok();
            let seen = |event: &Event| {
                let EventObject { id, client_reference_id, metadata, payment_intent } = event.data.object.clone();
                let mut metadata = metadata.unwrap_or_default();
                metadata.retain(|name, _| NAMES.contains(&name.as_str()));
                let payment = payment_intent.as_ref().map(|payment| Expandable::id(payment).to_owned());
                (event.livemode, event.account.clone(), id, client_reference_id, metadata, payment)
            };
            prop_assert_eq!(read.as_ref().map(seen), read_again.as_ref().map(seen));
        }

        #[test]
        fn of_any_text_that_names_an_event_something_is_kept_that_names_it(
            body in prop_oneof![r"\PC{0,60}", r#"\{"id": ?("[^"\\]{0,12}"|7|null), ?"type": ?("[^"\\]{0,12}"|\{\})(, ?"data": ?(\{\}|\[\]|"x"|\{"object": ?(7|\{\}|\[\])\}))?(, ?"livemode": ?(true|0))?\}"#],
        ) {
            if let Ok(name) = serde_json::from_str::<EventName>(&body) {
                let again: EventName = serde_json::from_str(&pointer_of(&body, &name)).unwrap();
                prop_assert_eq!((again.id, again.r#type), (name.id, name.r#type));
            }
        }
    }
}
