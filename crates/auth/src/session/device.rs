//! What a client calls itself, in words for people. The whole of it is free text that anybody may send: good for a name
//! in a list, never for a decision about rights.
//!
//! A table of the families that people use, in the order in which they hide behind each other: nearly every browser also
//! claims to be Chrome, Safari and Mozilla. A family that is missing shows as the one it claims to be.

use mana_platform::http::Language;
use serde::Serialize;
use utoipa::ToSchema;

/// A client as far as its user agent tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    /// Family of the browser or program, as `Firefox`.
    pub browser: Option<&'static str>,
    /// Operating system, as `Windows`.
    pub os: Option<&'static str>,
    /// What sort of thing it is.
    pub kind: Option<DeviceKind>,
}

/// What sort of thing a client runs on, or that it is a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A desktop or laptop.
    Desktop,
    /// A phone.
    Phone,
    /// A tablet.
    Tablet,
    /// A program without a screen of its own, as curl.
    Program,
}

/// Programs name themselves first.
const PROGRAMS: [(&str, &str); 14] = [
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("HTTPie/", "HTTPie"),
    ("PostmanRuntime/", "Postman"),
    ("insomnia/", "Insomnia"),
    ("python-requests/", "Python"),
    ("python-httpx/", "Python"),
    ("Python-urllib/", "Python"),
    ("Python/", "Python"),
    ("axios/", "Node.js"),
    ("node", "Node.js"),
    ("okhttp/", "OkHttp"),
    ("Dart/", "Dart"),
    ("Go-http-client/", "Go"),
];

/// The more special first.
const BROWSERS: [(&str, &str); 24] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("OPiOS/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("YaBrowser/", "Yandex Browser"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("UCBrowser/", "UC Browser"),
    ("MiuiBrowser/", "Mi Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("MSIE ", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("Safari/", "Safari"),
];

/// The same: Android is a Linux, an iPhone is "like Mac OS X", a Windows Phone is an Android.
const SYSTEMS: [(&str, &str, DeviceKind); 12] = [
    ("Windows Phone", "Windows Phone", DeviceKind::Phone),
    ("Windows", "Windows", DeviceKind::Desktop),
    ("HarmonyOS", "HarmonyOS", DeviceKind::Phone),
    ("OpenHarmony", "HarmonyOS", DeviceKind::Phone),
    ("Android", "Android", DeviceKind::Tablet),
    ("iPad", "iPadOS", DeviceKind::Tablet),
    ("iPhone", "iOS", DeviceKind::Phone),
    ("iPod", "iOS", DeviceKind::Phone),
    ("CrOS", "ChromeOS", DeviceKind::Desktop),
    ("Macintosh", "macOS", DeviceKind::Desktop),
    ("Linux", "Linux", DeviceKind::Desktop),
    ("FreeBSD", "FreeBSD", DeviceKind::Desktop),
];

impl Device {
    /// Reads a user agent.
    pub fn of(user_agent: &str) -> Self {
        if let Some((_, name)) = PROGRAMS.iter().find(|(token, _)| user_agent.starts_with(token)) {
            return Self { browser: Some(name), os: None, kind: Some(DeviceKind::Program) };
        }
        let browser = BROWSERS.iter().find(|(token, _)| user_agent.contains(token)).map(|(_, name)| *name);
        let system = SYSTEMS.iter().find(|(token, ..)| user_agent.contains(token));
        let kind = system.map(|(_, name, kind)| match *name {
            // Browsers on an Android phone say Mobile, those on a tablet don't (Google's own rule).
            "Android" if user_agent.contains("Mobile") => DeviceKind::Phone,
            _ => *kind,
        });
        Self { browser, os: system.map(|(_, name, _)| *name), kind }
    }

    /// As `Firefox on Windows`.
    pub fn in_words(self, language: Language) -> String {
        match (self.browser, self.os, language) {
            (Some(browser), Some(os), Language::English) => format!("{browser} on {os}"),
            (Some(browser), Some(os), Language::German) => format!("{browser} unter {os}"),
            (Some(one), None, _) | (None, Some(one), _) => one.to_owned(),
            (None, None, Language::English) => "an unknown device".to_owned(),
            (None, None, Language::German) => "ein unbekanntes Gerät".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceKind::{Desktop, Phone, Program, Tablet};
    use proptest::prelude::*;

    #[test]
    fn the_families_that_people_use_are_told_apart() {
        let webkit = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (user_agent, words, kind) in [
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0".to_owned(), "Firefox on Windows", Desktop),
            (format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/139.0.0.0 Safari/537.36"), "Chrome on Windows", Desktop),
            (format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0"), "Edge on Windows", Desktop),
            (format!("Mozilla/5.0 (X11; Linux x86_64) {webkit} Chrome/138.0.0.0 Safari/537.36 OPR/122.0.0.0"), "Opera on Linux", Desktop),
            (format!("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {webkit} Chrome/139.0.0.0 Safari/537.36"), "Chrome on ChromeOS", Desktop),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15".to_owned(), "Safari on macOS", Desktop),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1".to_owned(), "Safari on iOS", Phone),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/139.0.0.0 Mobile/15E148 Safari/604.1".to_owned(), "Chrome on iOS", Phone),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/141.0 Mobile/15E148 Safari/605.1.15".to_owned(), "Firefox on iOS", Phone),
            ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1".to_owned(), "Safari on iPadOS", Tablet),
            (format!("Mozilla/5.0 (Linux; Android 10; K) {webkit} Chrome/139.0.0.0 Mobile Safari/537.36"), "Chrome on Android", Phone),
            (format!("Mozilla/5.0 (Linux; Android 10; K) {webkit} Chrome/139.0.0.0 Safari/537.36"), "Chrome on Android", Tablet),
            (format!("Mozilla/5.0 (Linux; Android 14; SM-S921B) {webkit} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"), "Samsung Internet on Android", Phone),
            ("Mozilla/5.0 (Android 15; Mobile; rv:141.0) Gecko/141.0 Firefox/141.0".to_owned(), "Firefox on Android", Phone),
            ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko".to_owned(), "Internet Explorer on Windows", Desktop),
            ("curl/8.14.1".to_owned(), "curl", Program),
            ("python-requests/2.32.4".to_owned(), "Python", Program),
            ("okhttp/4.12.0".to_owned(), "OkHttp", Program),
        ] {
            let device = Device::of(&user_agent);
            assert_eq!(
                (device.in_words(Language::English).as_str(), device.kind),
                (words, Some(kind)),
                "{user_agent}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        for user_agent in ["", "Mozilla/5.0", "x", "\u{1f600}", "Chrome", "not curl/8"] {
            assert_eq!(Device::of(user_agent), Device::default(), "{user_agent}");
        }
        assert_eq!(Device::default().in_words(Language::German), "ein unbekanntes Gerät");
        assert_eq!(Device::of("MyApp/1.0 (Android 14)").in_words(Language::English), "Android");
    }

    proptest! {
        #[test]
        fn of_what_a_client_says_only_words_of_ours_are_shown(user_agent in "((Mozilla/5\\.0|Chrome/|Firefox/|Edg/|Windows|Android|Mobile|iPhone|curl/|<b>|[ -~\u{e4}]{0,8}) ?){0,10}") {
            let device = Device::of(&user_agent);
            let is_ours = |name: &&str| PROGRAMS.iter().chain(&BROWSERS).any(|(_, known)| known == name);
            prop_assert!(device.browser.as_ref().is_none_or(is_ours));
            prop_assert!(device.os.is_none_or(|name| SYSTEMS.iter().any(|(_, known, _)| *known == name)));
            for language in [Language::English, Language::German] {
                let words = device.in_words(language);
                prop_assert!(words.len() <= 48 && !words.contains(['<', '&', '"']), "{words}");
            }
        }
    }
}
