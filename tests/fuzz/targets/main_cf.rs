//! main.cf of any bytes: every parameter has a value or an error, in the end. And values with `$`, made together with
//! what they come to.

use crate::command::{names, survey};
use crate::config::{Config, TABLE};
use crate::log::Shown;

use super::input::Input;
use super::obvious::lines::{is_space, trim};
use super::surroundings::config;

/// What is set for the targets, whatever the file says.
const SURROUNDINGS: [&str; 4] = ["myhostname", "mydomain", "mynetworks", "myorigin"];

/// Where the first byte is even, the rest is main.cf; otherwise it is what a value is made of.
pub fn main_cf(data: &[u8]) {
    let mut input = Input(data);
    if input.bit() {
        check_value(&mut input);
    } else {
        check_file(input.0);
    }
}

fn check_file(file: &[u8]) {
    let mut expected = Expected::default();
    let is_right = expected.read(file);
    let config = match config(file) {
        Ok(config) => config,
        Err(error) => {
            assert!(!is_right, "{error}");
            assert_eq!(error.warnings(), expected.warnings);
            let place = format!("/nonexistent/main.cf, line {}: ", expected.line);
            assert!(error.to_string().starts_with(&place), "{error}");
            return;
        }
    };
    assert!(is_right, "a line without a name or a value");
    assert_eq!(config.take_warnings(), expected.warnings);
    for (name, value) in &expected.set {
        let name = String::from_utf8_lossy(name);
        if name.contains(char::REPLACEMENT_CHARACTER) || SURROUNDINGS.contains(&&*name) {
            continue;
        }
        assert_eq!(config.as_set(&name).as_deref(), Some(&value[..]), "{name}");
    }
    let names = expected.set.iter().map(|(name, _)| &name[..]);
    let mut names: Vec<&[u8]> = names.chain(SURROUNDINGS.map(str::as_bytes)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(config.names_set(), names);
    evaluate(&config);
}

/// What a file says.
#[derive(Default)]
struct Expected {
    /// Names and values as they are written, the last of each name.
    set: Vec<(Vec<u8>, Vec<u8>)>,
    warnings: Vec<String>,
    /// The number of the line that was read last.
    line: usize,
}

impl Expected {
    /// Reads a file as far as a line that has no name or no value. Whether there is none.
    fn read(&mut self, file: &[u8]) -> bool {
        for (first, last, line, has_nul) in numbered(file) {
            let warn = |text: &str| format!("/nonexistent/main.cf{text}");
            self.line = first;
            if has_nul {
                let lines = if first == last {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                };
                self.warnings.push(warn(&format!(
                    ", line {lines}: text after null byte may be ignored"
                )));
            }
            let text = line.split(|&b| b == 0).next().unwrap();
            if text.first().is_some_and(|&b| is_space(b)) {
                let shown = Shown(&text[..text.len().min(30)]);
                let more = if text.len() > 30 { "..." } else { "" };
                self.warnings.push(warn(&format!(
                    ": logical line must not start with whitespace: \"{shown}{more}\""
                )));
                continue;
            }
            let Some((name, value)) = name_and_value(text) else {
                return false;
            };
            if let Some((_, earlier)) = self.set.iter().find(|(own, _)| own == name) {
                if earlier != value {
                    let (name, earlier) = (Shown(name), Shown(earlier));
                    self.warnings.push(warn(&format!(
                        ", line {first}: overriding earlier entry: {name}={earlier}"
                    )));
                }
            }
            self.set.retain(|(own, _)| own != name);
            self.set.push((name.to_vec(), value.to_vec()));
        }
        true
    }
}

fn name_and_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|&b| b == b'=')?;
    let (name, value) = (trim(&text[..equals]), trim(&text[equals + 1..]));
    let is_name = !name.is_empty() && !name.iter().any(|&b| is_space(b));
    is_name.then_some((name, value))
}

/// The logical lines of a file: the numbers of their first line and of the last one up to the next, their text, and
/// whether a NUL is in any of these lines. What stands before the first is counted to it.
fn numbered(file: &[u8]) -> Vec<(usize, usize, Vec<u8>, bool)> {
    let mut found: Vec<(usize, usize, Vec<u8>, bool)> = Vec::new();
    let mut nul_before = false;
    let physical = file.strip_suffix(b"\n").unwrap_or(file);
    for (number, line) in (1..).zip(physical.split(|&b| b == b'\n')) {
        let has_nul = line.contains(&0);
        let is_text = !matches!(trim(line).first(), None | Some(b'#'));
        let continues = line.first().is_some_and(|&b| b == b'#' || is_space(b));
        match found.last_mut() {
            Some(last) if !is_text && (continues || number == last.1 + 1) => {
                last.1 = number;
                last.3 |= has_nul;
            }
            Some(last) if continues => {
                last.1 = number;
                last.2.extend_from_slice(line);
                last.3 |= has_nul;
            }
            None if !is_text => nul_before |= has_nul,
            Some(_) | None => {
                found.push((number, number, line.to_vec(), has_nul | nul_before));
                nul_before = false;
            }
        }
    }
    found
}

fn evaluate(config: &Config) {
    for param in TABLE {
        if let Err(error) = (param.check)(config) {
            assert!(!error.to_string().is_empty(), "{}", param.name);
        }
        drop(survey::changed(config, param.name));
        survey::is_empty_list(config, param.name);
    }
    for warning in config.take_warnings() {
        assert!(!warning.is_empty());
    }
    drop(names::unused(config));
    drop(names::undefined(config));
}

/// What the names in a made value stand for.
const MAIN_CF: &str = "one = x\nempty =\ntwo = $one$(one)\nnumber = 17\n";

const NAMES: &[(&str, &str)] = &[
    ("one", "x"),
    ("empty", ""),
    ("two", "xx"),
    ("number", "17"),
    ("nothing", ""),
];

/// How deep a value is made.
const DEPTH: u32 = 5;

fn check_value(input: &mut Input<'_>) {
    let Some((source, value)) = text(input, DEPTH) else {
        return;
    };
    // Blanks at the ends would not count.
    let config = config(format!("{MAIN_CF}mail_name = [{source}]\n").as_bytes()).unwrap();
    let found = config
        .mail_name()
        .map(|found| String::from_utf8(found).unwrap());
    assert_eq!(found, Ok(format!("[{value}]")), "{source}");
}

/// A text and what it comes to; none where it compares numbers that are too long.
fn text(input: &mut Input<'_>, depth: u32) -> Option<(String, String)> {
    let (mut source, mut value) = (String::new(), String::new());
    for _ in 0..input.byte() % 4 {
        let (s, v) = piece(input, depth)?;
        source += &s;
        value += &v;
    }
    Some((source, value))
}

fn piece(input: &mut Input<'_>, depth: u32) -> Option<(String, String)> {
    let (name, stands_for) = input.choice(NAMES);
    let kind = if depth == 0 {
        input.byte() % 5
    } else {
        input.byte() % 9
    };
    let known = stands_for.to_owned();
    Some(match kind {
        0 => ("$$".to_owned(), "$".to_owned()),
        1 => (format!("${name}."), format!("{known}.")),
        2 => (format!("${{{name}}}"), known),
        3 => (format!("$( {name} )"), known),
        4 => {
            let literal = input.choice(&[
                "a",
                "bc",
                " ",
                "1",
                "20",
                ":",
                "?",
                "=",
                "caf\u{e9}",
                "\t",
                "/",
            ]);
            (literal.to_owned(), literal.to_owned())
        }
        5 => {
            let (then, otherwise) = (text(input, depth - 1)?, text(input, depth - 1)?);
            let value = if known.is_empty() {
                otherwise.1
            } else {
                then.1
            };
            (
                format!("${{{name} ? {{{}}} : {{{}}}}}", then.0, otherwise.0),
                value,
            )
        }
        6 => {
            let (source, value) = text(input, depth - 1)?;
            let value = if known.is_empty() {
                String::new()
            } else {
                value
            };
            (format!("${{{name}?{{{source}}}}}"), value)
        }
        7 => {
            let (source, value) = text(input, depth - 1)?;
            let value = if known.is_empty() {
                value
            } else {
                String::new()
            };
            (format!("${{{name}:{{{source}}}}}"), value)
        }
        _ => comparison(input, depth)?,
    })
}

/// Operators, and whether they hold where the left operand is less, equal and greater.
const OPERATORS: &[(&str, [bool; 3])] = &[
    ("==", [false, true, false]),
    ("!=", [true, false, true]),
    ("<", [true, false, false]),
    ("<=", [true, true, false]),
    (">=", [false, true, true]),
    (">", [false, false, true]),
];

fn comparison(input: &mut Input<'_>, depth: u32) -> Option<(String, String)> {
    let (left, right) = (text(input, depth - 1)?, text(input, depth - 1)?);
    let (operator, holds) = input.choice(OPERATORS);
    let holds = holds[compare(&left.1, &right.1)?];
    let source = format!("{{{}}} {operator} {{{}}}", left.0, right.0);
    if input.bit() {
        let value = if holds { "true" } else { "" };
        return Some((format!("${{{source}}}"), value.to_owned()));
    }
    let (then, otherwise) = (text(input, depth - 1)?, text(input, depth - 1)?);
    let value = if holds { then.1 } else { otherwise.1 };
    let source = format!("${{{source} ? {{{}}} : {{{}}}}}", then.0, otherwise.0);
    Some((source, value))
}

/// 0 where the left one is less, 1 where they are equal, 2 where it is greater.
fn compare(left: &str, right: &str) -> Option<usize> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let ordering = if is_number(left) && is_number(right) {
        let (left, right): (i64, i64) = (left.parse().ok()?, right.parse().ok()?);
        left.cmp(&right)
    } else {
        left.cmp(right)
    };
    usize::try_from(ordering as i32 + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;

    #[test]
    fn every_value_comes_to_something() {
        random::run("main_cf", main_cf, |random| {
            if random.below(2) == 0 {
                let mut input = vec![1];
                input.extend((0..200).map(|_| random.byte()));
                return input;
            }
            let mut input = vec![0];
            for _ in 0..random.below(6) {
                let among = [2, TABLE.len()][random.below(2)];
                let param = TABLE[random.below(among)].name;
                input.extend(param.bytes());
                input.extend(random.text(3, &["=", " = ", "\n ", "#", "\0"]));
                input.extend(random.text(
                    6,
                    &[
                        "$",
                        "{",
                        "}",
                        "(",
                        ")",
                        "?",
                        ":",
                        "==",
                        "<level",
                        "yes",
                        "no",
                        "3.6",
                        "5m",
                        "9223372036854775808",
                        "-1",
                        "myhostname",
                        "mail_name",
                        " ",
                        ",",
                        "\u{e9}",
                        "x",
                        "all",
                        "cleanup",
                    ],
                ));
                input.push(b'\n');
            }
            random.damage(&mut input);
            input
        });
    }
}
