//! The whole error catalogue: for docs/ERRORS.md and the page at /docs/errors.

use mana_kernel::ErrorCode;
use std::fmt::Write as _;

/// Every error a client may see, by code.
pub fn catalogue() -> Vec<&'static ErrorCode> {
    let mut codes =
        [mana_platform::http::codes::CODES.to_vec(), mana_auth::error_codes(), mana_credits::error_codes()]
            .concat();
    codes.sort_by_key(|code| code.code);
    codes
}

/// docs/ERRORS.md.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Generated from the code by `cargo xtask gen`; do not edit.\n\n\
         Every answer that is not a success is `application/problem+json` (RFC 9457), but for the pages that people see. Programs switch on `code`, which never \
         changes its meaning; people read `message`. `instance` is the request's id: the operator finds the request by it.\n",
    );
    for code in catalogue() {
        let word = code.word.map(|word| format!(", `error`: `{word}`")).unwrap_or_default();
        // Writing to a String can't fail.
        let _ = write!(
            page,
            "\n## {}\n\n{} ({}{word})\n\n{}\n",
            code.code,
            code.title,
            code.kind.status(),
            code.way_out
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_dotted_but_for_the_one_that_clients_have() {
        let codes: Vec<_> = catalogue().iter().map(|code| code.code).collect();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
        assert!(
            codes.iter().all(|code| code.split('.').count() == 2 || *code == "EMAIL_NOT_VERIFIED"),
            "{codes:?}"
        );
    }

    #[test]
    fn no_code_that_was_documented_vanishes() {
        let documented = include_str!("../../../docs/ERRORS.md");
        let codes: Vec<_> = catalogue().iter().map(|code| code.code).collect();
        let headings: Vec<_> = documented.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert!(headings.len() > 20, "docs/ERRORS.md is not read as it is written");
        for heading in headings {
            assert!(codes.contains(&heading), "{heading} is a promise to clients and is gone from the code");
        }
    }
}
