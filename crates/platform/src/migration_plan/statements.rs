//! A file of SQL in statements, and these in words.

/// Written in a comment before a statement, with the reason, when a person has decided that it may be run all the same.
const ACCEPTED: &str = "Accepted:";

/// A statement in words: keywords and names in upper case, unless quoted.
pub(super) struct Statement {
    pub(super) words: Vec<String>,
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) accepted: Option<String>,
}

impl Statement {
    pub(super) fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}

/// Parts between commas that stand in no brackets.
pub(super) fn split_at_commas<'a>(words: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0_usize;
    for word in words {
        match *word {
            "(" => depth = depth.saturating_add(1),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if *word == "," && depth == 0 {
            parts.push(Vec::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(*word);
        }
    }
    parts
}

/// Statements, without their comments and with what these accept.
pub(super) fn split(sql: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let (mut words, mut text, mut accepted) = (Vec::new(), String::new(), None);
    let (mut line, mut begin) = (1_usize, 1_usize);
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        if token == ";" {
            if !words.is_empty() {
                let words = std::mem::take(&mut words);
                let text = std::mem::take(&mut text);
                statements.push(Statement { words, text, line: begin, accepted: accepted.take() });
            }
        } else if let Some(comment) = token.strip_prefix("--") {
            if let Some((_, reason)) = comment.split_once(ACCEPTED) {
                accepted = Some(reason.trim().to_owned());
            }
        } else if !first.is_whitespace() && !token.starts_with("/*") {
            if words.is_empty() {
                begin = line;
            }
            let is_apart = !text.is_empty() && !matches!(token, ")" | ",") && !text.ends_with('(');
            text.push_str(if is_apart { " " } else { "" });
            text.push_str(token);
            let is_quoted = token.starts_with(['\'', '$']);
            words.push(if is_quoted { token.to_owned() } else { token.replace('"', "").to_uppercase() });
        }
        line = line.saturating_add(token.matches('\n').count());
        rest = after;
    }
    if !words.is_empty() {
        statements.push(Statement { words, text, line: begin, accepted });
    }
    statements
}

/// How long the first token of a text is: a comment, a quoted text, white space, a name with its dots, or one character.
fn token_length(text: &str) -> usize {
    let until = |end: &str, from: usize| {
        let found = text.get(from..).and_then(|rest| rest.find(end));
        found.map_or(text.len(), |place| place.saturating_add(from).saturating_add(end.len()))
    };
    let while_is = |is_part: fn(char) -> bool| text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    match text.chars().next() {
        Some('-') if text.starts_with("--") => text.find('\n').unwrap_or(text.len()),
        Some('/') if text.starts_with("/*") => until("*/", 2),
        Some('\'') => until("'", 1),
        Some('$') => match text.get(1..).and_then(|rest| rest.find('$')) {
            Some(place) => {
                let tag = text.get(..place.saturating_add(2)).unwrap_or(text);
                until(tag, tag.len())
            }
            None => 1,
        },
        Some(letter) if letter.is_whitespace() => while_is(char::is_whitespace),
        Some(letter) if is_of_name(letter) => while_is(is_of_name),
        Some(letter) => letter.len_utf8(),
        None => 0,
    }
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.' | '"')
}
