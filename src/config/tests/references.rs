//! Tests of values of all parameters that refer to one another, to defaults, and to themselves.
//!
//! They follow `tests/spec/main-cf.md`, section 3.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use super::super::params::Param;
use super::*;

/// The stack of a thread that evaluates. The first thread of a process has 8 MiB.
const STACK: usize = 1024 * 1024;

/// The kernel's name for the machine, as in a container.
const KERNEL_NAME: &[u8] = b"box";

/// A main.cf that sets this and nothing else.
fn setting(values: &[(&str, String)]) -> Config {
    let overrides = values
        .iter()
        .map(|(name, value)| Override::new(name.as_bytes(), value.as_bytes()));
    let names = Names {
        process: "qmqpd".to_owned(),
        service: "628".to_owned(),
    };
    let directory = Path::new("/nonexistent");
    let config = Config::parse(directory, Vec::new(), overrides.collect(), names).unwrap();
    config.kernel_name.set(KERNEL_NAME.to_vec()).unwrap();
    config
}

/// What evaluating `name` says: the warnings, and the text that ends the process.
fn verdict(config: &Config, name: &str) -> Vec<String> {
    let param = TABLE.iter().find(|param| param.name == name).unwrap();
    let Err(error) = (param.check)(config) else {
        return Vec::new();
    };
    let mut said = error.warnings().to_vec();
    said.push(error.to_string());
    said
}

const SHORT_NAME: &str = "bad string length 0 < 1: myhostname = ";
const SHORT_DOMAIN: &str = "bad string length 0 < 1: mydomain = ";
const BAD_NAME: &str = "valid_hostname: misplaced delimiter: box.; \
    file /nonexistent/main.cf: parameter myhostname: bad parameter value: box.";
const BAD_MAIL_NAME: &str = "valid_hostname: misplaced delimiter: box.mail.; \
    file /nonexistent/main.cf: parameter myhostname: bad parameter value: box.mail.";
const NAME_NESTS: &str = "unreasonable macro call nesting: \"myhostname\"; \
    dictionary mail_dict: macro processing error";
const DOMAIN_NESTS: &str = "unreasonable macro call nesting: \"mydomain\"; \
    dictionary mail_dict: macro processing error";

/// main.cf, a parameter, and what Postfix 3.7's qmqpd says on a machine that is called `box`. Where both names are bad,
/// Postfix finds an empty mydomain first.
#[rustfmt::skip]
const COMPUTED: &[(&str, &str, &str)] = &[
    ("mydomain = $myhostname", "myhostname", BAD_NAME),
    ("mydomain = $myhostname", "mydomain", BAD_NAME),
    ("mydomain = mail.$myhostname", "myhostname", BAD_MAIL_NAME),
    ("mydomain = ${{$myhostname} == {} ? {} : {b}}", "myhostname", BAD_NAME),
    ("mydomain = ${{$myhostname} == {} ? {a} : {b}}", "myhostname", ""),
    ("mydomain = ${{$myhostname} == {} ? {a} : {b}}", "mydomain", ""),
    ("mydomain = ${myhostname:x}", "myhostname", ""),
    ("mydomain = ${myhostname:x}", "mydomain", SHORT_DOMAIN),
    ("mydomain = $mydestination", "myhostname", BAD_NAME),
    ("mydomain = $mydestination", "mydomain", SHORT_DOMAIN),
    ("mydomain = $process_name", "myhostname", ""),
    ("mydomain = $mydomain", "myhostname", DOMAIN_NESTS),
    ("myhostname = $mydomain", "myhostname", SHORT_NAME),
    ("mydomain = $myorigin; myorigin = $myhostname", "myhostname", BAD_NAME),
    ("mydomain = $myorigin; myorigin = $myhostname", "relayhost", BAD_NAME),
    ("mydomain = $myhostname; myhostname = $mydomain", "myhostname", NAME_NESTS),
];

#[test]
fn a_default_that_is_computed_finds_what_was_loaded_before_it() {
    for (main_cf, name, expected) in COMPUTED {
        let lines = main_cf.split("; ");
        let values: Vec<(&str, String)> = lines
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        let said = verdict(&setting(&values), name).join("; ");
        assert_eq!(said, *expected, "{name} with {main_cf}");
    }
}

/// The default of mydestination leads to six pieces: two references, what they stand for, and two stretches of text.
#[test]
fn a_default_counts_in_the_value_that_refers_to_it() {
    let complaint = |content_filter: String, more: &[(&str, String)]| {
        let host = [("myhostname", "h".to_owned()), ("mydomain", "d".to_owned())];
        let filter = [("content_filter", content_filter)];
        let config = setting(&[&host[..], &filter, more].concat());
        verdict(&config, "content_filter").first().cloned()
    };
    let too_many = |at: &str| Some(format!("unreasonable macro call nesting: \"{at}\""));

    // With the reference to it and a look at the result that makes eight.
    let pieces = "$mydestination".repeat(100_000 / 8);
    assert_eq!(complaint(pieces.clone(), &[]), None);
    assert_eq!(complaint(pieces + "-x", &[]), too_many("-x"));

    // The value is on level 0, the default on the level after its reference, the name in it on the next one.
    let levels = |n: usize| {
        let nested = format!("{}$mydestination{}", "${h?{".repeat(n), "}}".repeat(n));
        complaint(nested, &[("h", "1".to_owned())])
    };
    assert_eq!(levels(98), None);
    assert_eq!(levels(99), too_many("h"));
}

/// A parameter, and those that cannot be evaluated without it; itself is one.
type Read = (&'static str, Vec<&'static str>);

/// All parameters that can be set.
fn all() -> Vec<Read> {
    let can_be_set = TABLE.iter().filter(|param| !param.is_fixed());
    let all = can_be_set.map(|param| (param.name, readers(param.name)));
    let all: Vec<Read> = all.collect();
    for (name, readers) in &all {
        assert!(readers.contains(name), "{name}: {readers:?}");
    }
    all
}

/// The parameters that hear of a mistake in `name`, whether they are set themselves or not.
fn readers(name: &str) -> Vec<&'static str> {
    const MISTAKE: &str = "${";
    let hears = |config: &Config, reader: &Param| {
        let error = (reader.check)(config).err();
        error.is_some_and(|error| {
            error
                .warnings()
                .iter()
                .any(|warning| warning.contains(MISTAKE))
        })
    };
    let alone = setting(&[(name, MISTAKE.to_owned())]);
    let readers = TABLE.iter().filter(|reader| {
        let both = setting(&[(reader.name, "x".to_owned()), (name, MISTAKE.to_owned())]);
        hears(&alone, reader) || hears(&both, reader)
    });
    readers.map(|reader| reader.name).collect()
}

/// Sets each parameter of a cycle to `refer` of the next one, and evaluates all of them and all that read them.
fn evaluate_cycle(cycle: &[&Read], refer: fn(&str) -> String) {
    let next = cycle.iter().cycle().skip(1);
    let values = cycle.iter().zip(next);
    let values: Vec<_> = values
        .map(|((name, _), (next, _))| (*name, refer(next)))
        .collect();
    let said = evaluate(cycle, &values);
    for (name, _) in &values {
        assert!(!said[name].is_empty(), "{name} has a value: {values:?}");
    }
}

/// The same, but the last one is not set.
fn evaluate_chain(chain: &[&Read], refer: fn(&str) -> String) {
    let next = chain.iter().skip(1);
    let values = chain.iter().zip(next);
    let values: Vec<_> = values
        .map(|((name, _), (next, _))| (*name, refer(next)))
        .collect();
    let said = evaluate(chain, &values);
    assert!(said.len() >= chain.len(), "{said:?}");
}

fn evaluate(params: &[&Read], values: &[(&str, String)]) -> BTreeMap<&'static str, Vec<String>> {
    let config = setting(values);
    let readers = params.iter().flat_map(|(_, readers)| readers).copied();
    let readers: BTreeSet<&str> = readers.collect();
    let said = readers
        .into_iter()
        .map(|name| (name, verdict(&config, name)));
    said.collect()
}

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(STACK);
    thread.spawn(test).unwrap().join().unwrap();
}

fn plain(name: &str) -> String {
    format!("${name}")
}

#[test]
fn a_parameter_can_refer_to_any_other() {
    on_a_small_stack(|| {
        let all = all();
        for (at, a) in all.iter().enumerate() {
            for (bt, b) in all.iter().enumerate() {
                if at != bt {
                    evaluate_chain(&[a, b], plain);
                }
            }
        }
    });
}

#[test]
fn two_parameters_that_refer_to_each_other_come_to_an_end() {
    on_a_small_stack(|| {
        let all = all();
        for (at, a) in all.iter().enumerate() {
            evaluate_cycle(&[a], plain);
            for b in &all[at + 1..] {
                evaluate_cycle(&[a, b], plain);
            }
        }
    });
}

/// Those that read others or are read by them, and one of the rest, which differ in what text they take once it is
/// expanded.
fn entangled(all: &[Read]) -> Vec<&Read> {
    let is_read = |name: &str| {
        all.iter()
            .any(|(other, readers)| *other != name && readers.contains(&name))
    };
    let (mut some, rest): (Vec<&Read>, Vec<&Read>) = all
        .iter()
        .partition(|(name, readers)| readers.len() > 1 || is_read(name));
    some.extend(rest.first());
    some
}

#[test]
fn three_parameters_that_refer_to_one_another_come_to_an_end() {
    on_a_small_stack(|| {
        let all = all();
        let some = entangled(&all);
        assert!(some.len() > 15, "{some:?}");
        // What reads a cycle comes to it as with two parameters, and a cycle takes longer than anything else here.
        let alone: Vec<Read> = some.iter().map(|(name, _)| (*name, vec![*name])).collect();
        for i in 0..some.len() {
            for j in i + 1..some.len() {
                for k in j + 1..some.len() {
                    for [a, b, c] in [[i, j, k], [i, k, j]] {
                        evaluate_cycle(&[&alone[a], &alone[b], &alone[c]], plain);
                        for [a, b, c] in [[a, b, c], [b, c, a], [c, a, b]] {
                            evaluate_chain(&[some[a], some[b], some[c]], plain);
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn the_deepest_kinds_of_reference_come_to_an_end() {
    let kinds: [fn(&str) -> String; 4] = [
        |name| format!("${{{name}?${name}}}"),
        |name| format!("${{x:${name}}}"),
        |name| format!("${{{{${name}}} == {{x}}}}"),
        |name| format!("${{{{x}} == {{${name}}}?{{x}}:{{x}}}}"),
    ];
    on_a_small_stack(move || {
        let all = all();
        let some = entangled(&all);
        for (at, a) in some.iter().enumerate() {
            for b in &some[at + 1..] {
                for kind in kinds {
                    evaluate_cycle(&[a, b], kind);
                    evaluate_chain(&[a, b], kind);
                    evaluate_chain(&[b, a], kind);
                }
            }
        }
    });
}
