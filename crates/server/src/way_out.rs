//! Where mails go: to the SMTP server of the settings, else to an outbox.

use mana_platform::mail::{MailSettings, MailSettingsError, Mailer, Outbox, Smtp};
use mana_platform::{Settings, SystemClock};
use std::sync::Arc;

/// Mails that dev mode keeps for its developer.
const KEPT_MAILS: usize = 200;

/// The way out for mails.
#[derive(Debug, Clone)]
pub(crate) struct WayOut {
    pub(crate) mailer: Arc<dyn Mailer>,
    /// Whose mails are to be shown at /dev/outbox.
    pub(crate) outbox: Option<Arc<Outbox>>,
}

impl WayOut {
    /// For `serve`: without an SMTP server, mails leave a line in the log and nothing else.
    pub(crate) fn for_serve(settings: &Settings) -> Result<Self, MailSettingsError> {
        Ok(Self::smtp(settings)?.unwrap_or_else(|| {
            tracing::warn!(
                "SMTP_HOST is not set: mails are written to the log only, as one line each, and nobody gets them"
            );
            Self { mailer: Arc::new(Outbox::new(Arc::new(SystemClock), 0)), outbox: None }
        }))
    }

    /// For `dev`: without an SMTP server, mails are kept to be read.
    pub(crate) fn for_dev(settings: &Settings) -> Result<Self, MailSettingsError> {
        Ok(Self::smtp(settings)?.unwrap_or_else(|| {
            let outbox = Arc::new(Outbox::new(Arc::new(SystemClock), KEPT_MAILS));
            Self { mailer: outbox.clone(), outbox: Some(outbox) }
        }))
    }

    fn smtp(settings: &Settings) -> Result<Option<Self>, MailSettingsError> {
        let smtp = MailSettings::from_settings(settings)?;
        Ok(smtp.map(|smtp| Self { mailer: Arc::new(Smtp::new(smtp, Arc::new(SystemClock))), outbox: None }))
    }
}
