//! main.cf of any bytes: every parameter has a value or an error, in the end. And values with `$`, made together with
//! what they come to.

use crate::command::{names, survey};
use crate::config::{Config, TABLE};

use super::input::Input;
use super::obvious::lines::{is_space, logical, trim};
use super::surroundings::config;

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
    let expected = read(file);
    let config = match config(file) {
        Ok(config) => config,
        Err(error) => {
            assert!(expected.is_none(), "{error}");
            return;
        }
    };
    for (name, value) in &expected.expect("a line without a name or a value") {
        let name = String::from_utf8_lossy(name);
        if name.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        assert!(config.as_set(&name).is_some(), "{name}");
        if name == "content_filter" && !value.contains(&b'$') {
            assert_eq!(config.content_filter().unwrap(), *value);
        }
    }
    evaluate(&config);
}

/// Names and values as they are written, the last of each name; none where a line has no name or no value.
fn read(file: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut set: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in logical(file) {
        let text = line.split(|&b| b == 0).next().unwrap();
        if text.first().is_some_and(|&b| is_space(b)) {
            continue;
        }
        let equals = text.iter().position(|&b| b == b'=')?;
        let (name, value) = (trim(&text[..equals]), trim(&text[equals + 1..]));
        if name.is_empty() || name.iter().any(|&b| is_space(b)) {
            return None;
        }
        set.retain(|(own, _)| own != name);
        set.push((name.to_vec(), value.to_vec()));
    }
    Some(set)
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
                let param = TABLE[random.below(TABLE.len())].name;
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
