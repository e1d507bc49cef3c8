//! An auto top-up, when it buys, and when it gives up.

use mana_kernel::UserId;
use mana_platform::http::Language;
use time::{Duration, OffsetDateTime};

/// Where an auto top-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A card is yet to be saved at the till.
    Setup,
    /// It watches the balance.
    Active,
    /// It does not go on until its owner turns it on again.
    Paused,
    /// It is as if it had never been.
    Off,
}

impl Status {
    const ALL: [Self; 4] = [Self::Setup, Self::Active, Self::Paused, Self::Off];

    /// As in the database and the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Off => "off",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(crate) fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Why an auto top-up does not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// The card was declined too often.
    Declined,
    /// The bank wants to see its customer.
    AuthenticationRequired,
    /// The package gives or costs something else than what was agreed to.
    PackageChanged,
    /// The package is not for sale any more.
    PackageGone,
    /// Stripe does not know the card any more.
    PaymentMethodGone,
    /// Stripe refuses the payment, and not for the card.
    ProviderRefuses,
    /// The user owes mana.
    Debt,
    /// The user's bank contests a payment, or its issuer has warned of one.
    Disputed,
    /// A payment has gone back.
    Refunded,
    /// The wallet takes nothing any more.
    WalletClosed,
    /// A payment has come in and is not credited: a person has to see to it.
    Uncredited,
    /// The account may not act.
    UserDisabled,
    /// Tax is calculated now.
    Tax,
}

impl PauseReason {
    /// As in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::AuthenticationRequired => "authentication_required",
            Self::PackageChanged => "package_changed",
            Self::PackageGone => "package_gone",
            Self::PaymentMethodGone => "payment_method_gone",
            Self::ProviderRefuses => "provider_refuses",
            Self::Debt => "debt",
            Self::Disputed => "disputed",
            Self::Refunded => "refunded",
            Self::WalletClosed => "wallet_closed",
            Self::Uncredited => "uncredited",
            Self::UserDisabled => "user_disabled",
            Self::Tax => "tax",
        }
    }

    /// Whether the owner can help it by paying in person.
    pub(super) fn is_about_the_card(self) -> bool {
        matches!(self, Self::Declined | Self::AuthenticationRequired | Self::PaymentMethodGone)
    }
}

/// An auto top-up as its row has it.
#[derive(Debug, Clone)]
pub(crate) struct AutoTopUp {
    pub(crate) user: UserId,
    pub(crate) status: Status,
    pub(crate) threshold_mana: i64,
    pub(crate) package_id: String,
    pub(crate) currency: String,
    /// What the package gave and cost when its buyer agreed.
    pub(crate) credits: i64,
    pub(crate) price_cents: i64,
    pub(crate) monthly_cap_cents: i64,
    pub(crate) language: Language,
    pub(crate) customer_id: String,
    pub(crate) payment_method_id: Option<String>,
    pub(crate) setup_session_id: Option<String>,
    pub(crate) consented_at: OffsetDateTime,
    /// The version of the wallet when this was turned on.
    pub(crate) seen_version: i64,
    pub(crate) order_id: Option<String>,
    /// An order that is not to be charged any more.
    pub(crate) withdrawn_order_id: Option<String>,
    pub(crate) failures: i32,
    pub(crate) capped_until: Option<OffsetDateTime>,
    /// Sessions at Stripe that are to be closed.
    pub(crate) tills_to_close: Vec<String>,
    /// Cards that Stripe is to forget.
    pub(crate) cards_to_forget: Vec<String>,
}

/// A wallet, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchedWallet {
    pub(crate) version: i64,
    pub(crate) available: i64,
    pub(crate) debt: i64,
    pub(crate) is_closed: bool,
}

/// What stands against charging a user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blemishes {
    /// A payment is contested.
    pub(crate) is_disputed: bool,
    /// Since the consent, a payment was lost to a dispute, or its card's issuer warned.
    pub(crate) is_suspicious: bool,
    /// Since the consent, a top-up has gone back.
    pub(crate) is_refunded: bool,
}

impl AutoTopUp {
    /// Whether a wallet has changed since this was turned on and is below the threshold, however it came there, and nothing is under way for it.
    pub(crate) fn is_crossed(&self, wallet: &WatchedWallet, now: OffsetDateTime) -> bool {
        self.status == Status::Active
            && self.order_id.is_none()
            && self.capped_until.is_none_or(|until| until <= now)
            && wallet.version > self.seen_version
            && wallet.available < self.threshold_mana
    }

    /// Whether its owner has changed what was agreed to since the open order was opened: that one just ends.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.order_id.is_some() && self.order_id == self.withdrawn_order_id
    }

    /// Whether an order may be charged to a card, as far as its owner's will goes.
    pub(crate) fn allows(&self, order: &str, card: &str) -> bool {
        self.status == Status::Active
            && self.order_id.as_deref() == Some(order)
            && self.payment_method_id.as_deref() == Some(card)
            && !self.is_withdrawn()
    }
}

/// Why a user is not to be charged, whatever the balance.
pub(crate) fn objection(
    wallet: Option<&WatchedWallet>,
    blemishes: Blemishes,
    may_be_charged: bool,
) -> Option<PauseReason> {
    match wallet {
        _ if !may_be_charged => Some(PauseReason::UserDisabled),
        None => Some(PauseReason::WalletClosed),
        Some(wallet) if wallet.is_closed => Some(PauseReason::WalletClosed),
        Some(_) if blemishes.is_disputed || blemishes.is_suspicious => Some(PauseReason::Disputed),
        Some(_) if blemishes.is_refunded => Some(PauseReason::Refunded),
        Some(wallet) if wallet.debt > 0 => Some(PauseReason::Debt),
        Some(_) => None,
    }
}

/// How long to wait after so many refusals of the card; none when it has been enough.
pub(crate) fn pause_after(failures: i32) -> Option<Duration> {
    match failures {
        ..=1 => Some(Duration::hours(1)),
        2 => Some(Duration::days(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const WALLET: WatchedWallet = WatchedWallet { version: 2, available: 99, debt: 0, is_closed: false };
    const CLEAN: Blemishes = Blemishes { is_disputed: false, is_suspicious: false, is_refunded: false };

    fn top_up() -> AutoTopUp {
        AutoTopUp {
            user: "ada".parse().unwrap(),
            status: Status::Active,
            threshold_mana: 100,
            package_id: "small".to_owned(),
            currency: "eur".to_owned(),
            credits: 1_000,
            price_cents: 1_000,
            monthly_cap_cents: 5_000,
            language: Language::English,
            customer_id: "cus".to_owned(),
            payment_method_id: Some("pm".to_owned()),
            setup_session_id: None,
            consented_at: NOW,
            seen_version: 1,
            order_id: None,
            withdrawn_order_id: None,
            failures: 0,
            capped_until: None,
            tills_to_close: Vec::new(),
            cards_to_forget: Vec::new(),
        }
    }

    #[test]
    fn a_crossing_is_a_fall_below_the_threshold_with_nothing_under_way() {
        assert!(top_up().is_crossed(&WALLET, NOW));
        let is_not = |top_up: AutoTopUp, wallet: WatchedWallet| {
            assert!(!top_up.is_crossed(&wallet, NOW), "{top_up:?} {wallet:?}");
        };
        is_not(top_up(), WatchedWallet { available: 100, ..WALLET });
        is_not(top_up(), WatchedWallet { version: 1, ..WALLET });
        is_not(AutoTopUp { order_id: Some("order".to_owned()), ..top_up() }, WALLET);
        is_not(AutoTopUp { capped_until: Some(NOW + Duration::SECOND), ..top_up() }, WALLET);
        assert!(AutoTopUp { capped_until: Some(NOW), ..top_up() }.is_crossed(&WALLET, NOW));
        for status in [Status::Setup, Status::Paused, Status::Off] {
            is_not(AutoTopUp { status, ..top_up() }, WALLET);
        }
    }

    #[test]
    fn an_order_is_charged_as_it_was_agreed_to_or_not_at_all() {
        let open = AutoTopUp { order_id: Some("order".to_owned()), ..top_up() };
        let earlier = Some("an earlier one".to_owned());
        assert!(open.allows("order", "pm"));
        assert!(AutoTopUp { withdrawn_order_id: earlier, ..open.clone() }.allows("order", "pm"));
        for (changed, order, card) in [
            (open.clone(), "another", "pm"),
            (open.clone(), "order", "pm_another"),
            (AutoTopUp { withdrawn_order_id: Some("order".to_owned()), ..open.clone() }, "order", "pm"),
            (AutoTopUp { status: Status::Off, ..open.clone() }, "order", "pm"),
            (AutoTopUp { status: Status::Paused, ..open.clone() }, "order", "pm"),
            (AutoTopUp { payment_method_id: None, ..open }, "order", "pm"),
        ] {
            assert!(!changed.allows(order, card), "{changed:?}");
        }
        assert!(!top_up().is_withdrawn(), "there is nothing to withdraw");
    }

    #[test]
    fn nobody_is_charged_whose_money_may_have_to_go_back() {
        assert_eq!(objection(Some(&WALLET), CLEAN, true), None);
        assert_eq!(objection(Some(&WALLET), CLEAN, false), Some(PauseReason::UserDisabled));
        assert_eq!(objection(None, CLEAN, true), Some(PauseReason::WalletClosed));
        let closed = WatchedWallet { is_closed: true, ..WALLET };
        assert_eq!(objection(Some(&closed), CLEAN, true), Some(PauseReason::WalletClosed));
        let owing = WatchedWallet { debt: 1, ..WALLET };
        assert_eq!(objection(Some(&owing), CLEAN, true), Some(PauseReason::Debt));
        for (blemishes, reason) in [
            (Blemishes { is_disputed: true, ..CLEAN }, PauseReason::Disputed),
            (Blemishes { is_suspicious: true, ..CLEAN }, PauseReason::Disputed),
            (Blemishes { is_refunded: true, ..CLEAN }, PauseReason::Refunded),
        ] {
            assert_eq!(objection(Some(&WALLET), blemishes, true), Some(reason));
        }
    }

    #[test]
    fn a_card_is_tried_three_times() {
        let pauses: Vec<_> = (1..=4).map(pause_after).collect();
        assert_eq!(pauses, [Some(Duration::hours(1)), Some(Duration::days(1)), None, None]);
    }
}
