//! Time-based codes (RFC 6238): SHA-1, six digits, steps of 30 seconds, as every authenticator app has them.

use super::model::TwoFactorError;
use mana_kernel::Rng;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use std::ops::RangeInclusive;
use time::OffsetDateTime;
use totp_rs::{Builder, Secret};

/// Bytes of a new secret: as many as the hash gives (RFC 4226, section 4).
const SECRET_LENGTH: usize = 20;
/// Bytes of a secret that was made elsewhere: no less than the standard asks for, no more than a block of the hash.
const BROUGHT_LENGTHS: RangeInclusive<usize> = 16..=64;
const DIGITS: usize = 6;

/// The secret that an authenticator app and the service share.
pub(crate) struct TotpSecret(Box<[u8]>);

impl TotpSecret {
    /// A new one.
    pub(crate) fn generate(rng: &dyn Rng) -> Self {
        let mut bytes = [0; SECRET_LENGTH];
        rng.fill(&mut bytes);
        Self(bytes.into())
    }

    /// From what [`Self::as_bytes`] gave, or another program.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        BROUGHT_LENGTHS.contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// To be sealed.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For typing it into an app.
    pub(super) fn base32(&self) -> String {
        Secret::new(self.0.clone()).to_base32()
    }

    /// The time step whose code this is at `now`, give or take one step for clocks that differ. The caller sees to it that each step is
    /// taken once.
    pub(super) fn step_of(&self, code: &str, now: OffsetDateTime) -> Result<Option<i64>, TwoFactorError> {
        if code.len() != DIGITS || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        let totp = Builder::new().with_secret(Secret::new(self.0.clone())).with_skew(1).build()?;
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        Ok(totp.check(code, seconds).and_then(|step| i64::try_from(step).ok()))
    }

    /// What a QR code says to an app (the de-facto otpauth format).
    pub(super) fn url(&self, issuer: &str, account: &str) -> Result<String, TwoFactorError> {
        let without_colons = |text: &str| text.replace(':', " ");
        let totp = Builder::new()
            .with_secret(Secret::new(self.0.clone()))
            .with_issuer(Some(without_colons(issuer)))
            .with_account_name(without_colons(account))
            .build()?;
        Ok(totp.to_url()?)
    }
}

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret([redacted])")
    }
}

/// A picture of the text for an app to scan, as SVG.
pub(super) fn qr_code(text: &str) -> Result<String, TwoFactorError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)?;
    Ok(code.render::<svg::Color<'_>>().min_dimensions(240, 240).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn the_codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, the last six digits.
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(secret.step_of(code, at(seconds)).unwrap(), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn a_secret_from_elsewhere_may_have_another_length_but_not_any() {
        // What an authenticator app shows for the text that another program took for a secret.
        let secret = TotpSecret::from_bytes(b"abcdefghijklmnopqrstuvwxyz012345").unwrap();
        assert_eq!(secret.base32(), "MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43UOV3HO6DZPIYDCMRTGQ2Q");
        assert!(secret.step_of("000000", at(59)).is_ok());
        for length in [0, 15, 65] {
            assert!(TotpSecret::from_bytes(&vec![1; length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_before_and_after_its_own_and_no_longer() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let good = |seconds| secret.step_of("005924", at(seconds)).unwrap().is_some();
        let step = 1_234_567_890 / 30 * 30;
        assert!(good(step - 30) && good(step) && good(step + 59));
        assert!(!good(step - 31) && !good(step + 60));
    }

    #[test]
    fn what_is_not_six_digits_is_no_code() {
        let secret = TotpSecret::generate(&SystemRng);
        for bad in ["", "12345", "1234567", "12 456", "１２３４５６", "abcdef", "+12345"] {
            assert_eq!(secret.step_of(bad, at(0)).unwrap(), None, "{bad:?}");
        }
    }

    /// What a camera reads in a picture of dark rectangles (`M{left} {top}h{width}v{height}H{left}V{top}`) on a light ground.
    fn scanned(picture: &str) -> String {
        let number = |text: &str| -> usize {
            let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
            text[..digits].parse().unwrap()
        };
        let behind = |text: &str, mark: &str| number(text.split_once(mark).unwrap().1);
        let (width, height) = (behind(picture, "width=\""), behind(picture, "height=\""));
        let mut dark = vec![vec![false; width]; height];
        let is_rectangle = |part: &&str| part.starts_with(|first: char| first.is_ascii_digit());
        for rectangle in picture.split('M').skip(1).filter(is_rectangle) {
            let (left, top) = (number(rectangle), behind(rectangle, " "));
            for row in dark.iter_mut().skip(top).take(behind(rectangle, "v")) {
                row.iter_mut().skip(left).take(behind(rectangle, "h")).for_each(|is_dark| *is_dark = true);
            }
        }
        let mut picture =
            rqrr::PreparedImage::prepare_from_greyscale(
                width,
                height,
                |x, y| {
                    if dark[y][x] { 0 } else { 255 }
                },
            );
        let codes = picture.detect_grids();
        assert_eq!(codes.len(), 1);
        codes[0].decode().unwrap().1
    }

    #[test]
    fn an_app_reads_the_secret_from_the_url_and_its_picture() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let url = secret.url("Mana: Core", "ada@example.com").unwrap();
        assert!(
            url.starts_with(
                "otpauth://totp/Mana%20%20Core:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
            ),
            "{url}"
        );
        let picture = qr_code(&url).unwrap();
        assert!(picture.contains("<svg") && !picture.contains("<script"), "{picture}");
        assert_eq!(scanned(&picture), url);
        assert_eq!(format!("{secret:?}"), "TotpSecret([redacted])");
    }
}
