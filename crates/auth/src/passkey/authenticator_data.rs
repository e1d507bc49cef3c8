//! What the authenticator says (WebAuthn 6.1): for which relying party, what it saw, and at registration the new credential.

use super::cbor;

/// Shorter ones are not random enough to be unique, longer ones are not allowed (WebAuthn 4, 7.1).
const CREDENTIAL_ID_LENGTHS: std::ops::RangeInclusive<usize> = 16..=1023;

/// As read; nothing of it is believed yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AuthenticatorData<'a> {
    /// SHA-256 of the relying party's id.
    pub(super) rp_id_hash: &'a [u8; 32],
    pub(super) flags: Flags,
    /// How often the credential, or the authenticator, has signed; always zero where nobody counts.
    pub(super) sign_count: u32,
    /// The new credential, at registration.
    pub(super) attested: Option<Attested<'a>>,
}

/// Bits of what the authenticator saw and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    const ATTESTED: u8 = 0x40;
    const EXTENSIONS: u8 = 0x80;
    /// Reserved: what they will mean is unknown, so nothing is concluded from them.
    #[cfg(test)]
    pub(super) const RESERVED: u8 = 0x22;

    /// Somebody touched it.
    pub(super) fn is_user_present(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// It checked by PIN or body who that was.
    pub(super) fn is_user_verified(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// The credential may be copied to other devices.
    pub(super) fn is_backup_eligible(self) -> bool {
        self.0 & 0x08 != 0
    }

    /// It was.
    pub(super) fn is_backed_up(self) -> bool {
        self.0 & 0x10 != 0
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// A new credential.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attested<'a> {
    pub(super) credential_id: &'a [u8],
    /// As COSE has it.
    pub(super) public_key: &'a [u8],
}

impl<'a> AuthenticatorData<'a> {
    /// Reads all of the bytes. None if they are no such thing, or more.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (rp_id_hash, rest) = bytes.split_first_chunk::<32>()?;
        let (&flags, rest) = rest.split_first()?;
        let (sign_count, mut rest) = rest.split_first_chunk::<4>()?;
        let flags = Flags(flags);
        let attested = if flags.has(Flags::ATTESTED) { Some(Attested::take(&mut rest)?) } else { None };
        if flags.has(Flags::EXTENSIONS) {
            cbor::take_map(&mut rest)?;
        }
        let sign_count = u32::from_be_bytes(*sign_count);
        rest.is_empty().then_some(Self { rp_id_hash, flags, sign_count, attested })
    }
}

impl<'a> Attested<'a> {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let (_aaguid, rest) = bytes.split_first_chunk::<16>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (credential_id, key_on) = rest.split_at_checked(length)?;
        let mut rest = key_on;
        cbor::take_map(&mut rest)?;
        let public_key = key_on.get(..key_on.len().checked_sub(rest.len())?)?;
        *bytes = rest;
        CREDENTIAL_ID_LENGTHS.contains(&length).then_some(Self { credential_id, public_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A map of one entry.
    const KEY: [u8; 3] = [0xa1, 0x01, 0x02];

    fn data(flags: u8, tail: &[&[u8]]) -> Vec<u8> {
        [&[7; 32][..], &[flags], &[0, 0, 1, 2], &tail.concat()].concat()
    }

    fn attested(id_length: u16) -> Vec<u8> {
        [&[0; 16][..], &id_length.to_be_bytes(), &vec![9; usize::from(id_length)], &KEY].concat()
    }

    #[test]
    fn each_part_is_found() {
        let bytes = data(0x01, &[]);
        let read = AuthenticatorData::read(&bytes).unwrap();
        assert_eq!((read.rp_id_hash, read.sign_count, &read.attested), (&[7; 32], 258, &None));
        assert!(read.flags.is_user_present() && !read.flags.is_user_verified());

        let bytes = data(0xdd, &[&attested(32), &KEY]);
        let read = AuthenticatorData::read(&bytes).unwrap();
        assert_eq!(read.attested, Some(Attested { credential_id: &[9; 32], public_key: &KEY }));
        assert!(
            read.flags.is_user_verified() && read.flags.is_backup_eligible() && read.flags.is_backed_up()
        );
    }

    #[test]
    fn what_is_too_short_or_too_long_or_otherwise_wrong_is_not_read() {
        let whole = data(0xc1, &[&attested(32), &KEY]);
        assert!(AuthenticatorData::read(&whole).is_some());
        for end in 0..whole.len() {
            assert!(AuthenticatorData::read(&whole[..end]).is_none(), "{end}");
        }
        for bad in [
            data(0x01, &[&[0]]),
            data(0x01, &[&attested(32)]),
            data(0x41, &[&attested(32), &KEY]),
            data(0x81, &[&[0x01]]),
            data(0x41, &[&attested(15)]),
            data(0x41, &[&attested(1024)]),
            // A key that stands twice.
            data(0x81, &[&[0xa2, 0x01, 0x02, 0x01, 0x03]]),
        ] {
            assert!(AuthenticatorData::read(&bad).is_none(), "{bad:?}");
        }
        for good in [data(0x41, &[&attested(16)]), data(0x41, &[&attested(1023)])] {
            assert!(AuthenticatorData::read(&good).is_some());
        }
    }

    #[test]
    fn nesting_without_end_is_not_followed() {
        let deep = data(0x81, &[&[0xa1, 0x01], &vec![0x81; 60_000]]);
        assert!(AuthenticatorData::read(&deep).is_none());
        let tags = data(0x81, &[&[0xa1, 0x01], &vec![0xc1; 60_000]]);
        assert!(AuthenticatorData::read(&tags).is_none());
        // An array that says it has 2^40 items.
        let boast = data(0x81, &[&[0xa1, 0x01, 0x9b, 0, 0, 1, 0, 0, 0, 0, 0]]);
        assert!(AuthenticatorData::read(&boast).is_none());
        let boast = data(0x81, &[&[0xa1, 0x01, 0x5b, 0, 0, 1, 0, 0, 0, 0, 0]]);
        assert!(AuthenticatorData::read(&boast).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = AuthenticatorData::read(&bytes);
        }

        #[test]
        fn any_bytes_behind_a_right_beginning_end_in_an_answer(flags: u8, bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let begun = data(flags | 0x41, &[&attested(16)[..34], &bytes]);
            if let Some(read) = AuthenticatorData::read(&begun) {
                let new = read.attested.unwrap();
                prop_assert_eq!(new.credential_id, &[9_u8; 16][..]);
                prop_assert!(bytes.starts_with(new.public_key));
            }
            let _ = AuthenticatorData::read(&data(flags, &[&bytes]));
            let without_parts = data(flags & 0x3f, &[&bytes]);
            prop_assert_eq!(AuthenticatorData::read(&without_parts).is_some(), bytes.is_empty());
        }
    }
}
