//! What Better Auth closed under its secret: XChaCha20-Poly1305 under the SHA-256 of the secret, the nonce before the text, all of it
//! in hexadecimal digits; in later versions behind `$ba$` and the version of the secret.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use mana_kernel::secret::sha256;
use secrecy::{ExposeSecret as _, SecretString};

const NONCE: usize = 24;
const PREFIX: &str = "$ba$";

/// What was closed under the secret; none if it was closed under another one, or is not closed like that.
pub(super) fn open(text: &str, secret: &SecretString) -> Option<String> {
    let digits = match text.strip_prefix(PREFIX) {
        Some(rest) => rest.split_once('$')?.1,
        None => text,
    };
    let bytes = from_hex(digits)?;
    let (nonce, closed) = bytes.split_first_chunk::<NONCE>()?;
    let cipher = XChaCha20Poly1305::new(&sha256(secret.expose_secret().as_bytes()).into());
    let plain = cipher.decrypt(&XNonce::from(*nonce), closed).ok()?;
    String::from_utf8(plain).ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// As that program closes a text.
    fn closed(text: &str, secret: &str) -> String {
        let nonce = [7; NONCE];
        let cipher = XChaCha20Poly1305::new(&sha256(secret.as_bytes()).into());
        let bytes = cipher.encrypt(&XNonce::from(nonce), text.as_bytes()).unwrap();
        nonce.iter().chain(&bytes).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn what_was_closed_opens_under_its_secret_and_no_other() {
        let text = closed("a secret", "right");
        assert_eq!(open(&text, &secret("right")).as_deref(), Some("a secret"));
        assert_eq!(open(&format!("$ba$3${text}"), &secret("right")).as_deref(), Some("a secret"));
        assert_eq!(open(&text, &secret("wrong")), None);
        for other in ["", "zz", "$ba$", "$ba$1$", "JBSWY3DPEHPK3PXP", &text[..40], &text[..text.len() - 1]] {
            assert_eq!(open(other, &secret("right")), None, "{other}");
        }
    }

    #[test]
    fn the_cipher_is_that_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1, without its associated data: the key stream is the same, so the text is.
        let key: [u8; 32] = std::array::from_fn(|place| 0x80 + u8::try_from(place).unwrap());
        let nonce: [u8; NONCE] = std::array::from_fn(|place| 0x40 + u8::try_from(place).unwrap());
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let sealed =
            XChaCha20Poly1305::new(&key.into()).encrypt(&XNonce::from(nonce), text.as_slice()).unwrap();
        assert_eq!(sealed[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
    }
}
