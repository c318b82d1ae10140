//! Tests of values: kinds, bounds, references, and defaults from the machine and the process.
//!
//! They follow `tests/spec/main-cf.md`, sections 5 to 7.

use super::super::hostname::ORIGIN_LIMIT;
use super::super::keywords::{Protocols, ReceiveOverrides};
use super::super::kinds::{Count, Kind};
use super::*;

#[rustfmt::skip]
const BAD: &[(&str, &str, &str)] = &[
    ("qmqpd_timeout", "5x", "parameter qmqpd_timeout: bad time value or unit: 5x"),
    ("qmqpd_timeout", "", "parameter qmqpd_timeout: bad time value or unit: "),
    ("qmqpd_timeout", "0", "invalid qmqpd_timeout: 0 (min 1)"),
    ("in_flow_delay", "11", "invalid in_flow_delay: 11 (max 10)"),
    ("line_length_limit", "2048x", "bad numerical configuration: line_length_limit = 2048x"),
    ("line_length_limit", "", "bad numerical configuration: line_length_limit = "),
    ("line_length_limit", "0x800", "bad numerical configuration: line_length_limit = 0x800"),
    ("line_length_limit", "2147483648", "bad numerical configuration: line_length_limit = 2147483648"),
    ("line_length_limit", "511", "invalid line_length_limit parameter value 511 < 512"),
    ("line_length_limit", "-5", "invalid line_length_limit parameter value -5 < 512"),
    ("delay_logging_resolution_limit", "7", "invalid delay_logging_resolution_limit parameter value 7 > 6"),
    ("debug_peer_level", "0", "invalid debug_peer_level parameter value 0 < 1"),
    ("message_size_limit", "10M", "bad numerical configuration: message_size_limit = 10M"),
    ("message_size_limit", "9223372036854775808", "bad numerical configuration: message_size_limit = 9223372036854775808"),
    ("soft_bounce", "true", "bad boolean configuration: soft_bounce = true"),
    ("soft_bounce", "", "bad boolean configuration: soft_bounce = "),
    ("syslog_name", "", "bad string length 0 < 1: syslog_name = "),
    ("default_verp_delimiters", "abc", "bad string length 3 > 2: default_verp_delimiters = abc"),
    ("receive_override_options", "no_milters foo bar", "unknown receive_override_options value \"foo\" in \"no_milters foo bar\""),
    ("smtputf8_autodetect_classes", "foo", "unknown smtputf8_autodetect_classes value \"foo\" in \"foo\""),
    ("inet_protocols", "ipv5", "unknown inet_protocols value \"ipv5\" in \"ipv5\""),
    ("inet_protocols", "", "all network protocols are disabled (inet_protocols = )"),
    ("mynetworks_style", "foo", "unknown mynetworks mask style value \"foo\" in \"foo\""),
    ("mynetworks_style", "host,subnet", "bad mynetworks_style value: host,subnet; specify exactly one value"),
    ("syslog_facility", "LOCAL0", "file DIR/main.cf: parameter syslog_facility: unrecognized value: LOCAL0"),
    ("compatibility_level", "", "malformed compatibility level syntax: \"\""),
    ("verp_delimiter_filter", "-=", "file DIR/main.cf: parameters default_verp_delimiters and verp_delimiter_filter: bad first VERP delimiter character"),
    ("verp_delimiter_filter", "-+", "file DIR/main.cf: parameters default_verp_delimiters and verp_delimiter_filter: bad second VERP delimiter character"),
    ("maillog_file", "/x.log", "maillog_file value '/x.log' does not match any prefix in maillog_file_prefixes"),
    ("myorigin", "a b", "myorigin parameter setting must not contain multiple values: a b"),
    ("myorigin", "/nonexistent", "/nonexistent: cannot open file: No such file or directory"),
    ("myorigin", "/dev/zero", "/dev/zero: cannot open file: not a regular file"),
    ("myorigin", "/dev/null", "myorigin file /dev/null is empty"),
];

#[test]
fn bad_values_are_refused_in_postfixs_words() {
    for (name, value, expected) in BAD {
        assert_eq!(complaint(name, &format!("{name} = {value}\n")), *expected);
    }
    assert_eq!(
        complaint(
            "relayhost",
            "myhostname = mx.example\nrelayhost = MX.example\n"
        ),
        "myhostname and relayhost parameter settings must not be identical: mx.example"
    );
}

#[test]
fn times_are_numbers_with_a_unit() {
    let secs = |value: &str| {
        let config = config(&format!("sp = ${{x:{{ }}}}\nqmqpd_error_delay = {value}\n"));
        config.qmqpd_error_delay().ok().map(|time| time.as_secs())
    };
    for (value, expected) in [
        ("5", 5),
        ("5s", 5),
        ("5sfoo", 5),
        ("+2m", 120),
        ("010", 10),
        ("1h", 3600),
        ("1d", 86400),
        ("1w", 604_800),
        ("s", 0),
        ("-0", 0),
        ("${sp}5", 5),
        ("35791393m", 2_147_483_580),
        ("2147483647", 2_147_483_647),
    ] {
        assert_eq!(secs(value), Some(expected), "{value}");
    }
    for value in [
        "",
        "5 s",
        "5S",
        "1.5",
        "0x10",
        "-1",
        "+",
        "-s",
        "5$sp",
        "${sp}s",
        "35791394m",
        "596523h",
        "24855d",
        "3550w",
        "2147483648",
        "99999999999999999999",
    ] {
        assert_eq!(secs(value), None, "{value}");
    }
}

#[test]
fn numbers_may_have_a_sign_and_no_bound() {
    for (value, limit) in [
        ("1", Some(1)),
        ("0", None),
        ("-1", None),
        ("-9223372036854775808", None),
        ("9223372036854775807", Some(i64::MAX as u64)),
    ] {
        let config = config(&format!("message_size_limit = {value}\n"));
        assert_eq!(config.message_size_limit(), Ok(limit), "{value}");
    }
    assert_eq!(
        config("line_length_limit = +600\n").line_length_limit(),
        Ok(600)
    );
    let no_bound = &TABLE[position(b"dont_remove").unwrap()];
    for (value, count) in [("-2147483648", 0), ("-1", 0), ("2147483647", 2_147_483_647)] {
        let parsed = Count::parse(&config(""), no_bound, value.into());
        assert_eq!(parsed, Ok(count), "{value}");
    }
}

#[test]
fn yes_and_no_are_the_only_words_for_it() {
    assert_eq!(config("soft_bounce = YES\n").soft_bounce(), Ok(true));
    assert_eq!(config("soft_bounce = No\n").soft_bounce(), Ok(false));
}

#[test]
fn keywords_add_up() {
    let config = config(
        "receive_override_options = no_milters,, no_address_mappings\ninet_protocols = ipv4\n\
         smtputf8_autodetect_classes = verify all\nsyslog_facility = local3\n",
    );
    let expected = ReceiveOverrides {
        no_milters: true,
        no_address_mappings: true,
        ..ReceiveOverrides::default()
    };
    assert_eq!(config.receive_override_options(), Ok(expected));
    let ipv4 = Protocols {
        ipv4: true,
        ipv6: false,
    };
    assert_eq!(config.inet_protocols(), Ok(ipv4));
    assert!(config.smtputf8_autodetect_classes().unwrap().qmqpd);
    assert_eq!(config.syslog_facility(), Ok(19));
}

#[test]
fn a_name_that_loads_later_is_empty_as_it_is_in_postfix() {
    assert_eq!(
        complaint("qmqpd_timeout", "qmqpd_timeout = $smtpd_timeout\n"),
        "parameter qmqpd_timeout: bad time value or unit: "
    );
    assert_eq!(
        complaint("fork_delay", "fork_delay = $daemon_timeout\n"),
        "parameter fork_delay: bad time value or unit: "
    );
    assert_eq!(
        complaint("qmqpd_timeout", "qmqpd_timeout = $ipc_timeout\n"),
        ""
    );
    let set = "fork_delay = $daemon_timeout\ndaemon_timeout = 7\n";
    assert_eq!(value(&config(set), "fork_delay"), "7");
}

#[test]
fn a_default_refers_to_what_was_loaded_before_it() {
    let config = config(
        "myhostname = mx.example.org\nqmqpd_authorized_clients = $relay_domains|$syslog_name\n\
         multi_instance_name = postfix-x\n",
    );
    let list = "mx.example.org, localhost.example.org, localhost|postfix-x";
    assert_eq!(config.qmqpd_authorized_clients().as_deref(), Ok(list));
}

#[test]
fn the_compatibility_level_changes_defaults() {
    assert_eq!(config("").smtputf8_enable(), Ok(false));
    assert_eq!(
        config("compatibility_level = 1\n").smtputf8_enable(),
        Ok(true)
    );
    for (level, expected) in [("3.5", "no"), ("3.10", "yes")] {
        let config = config(&format!("compatibility_level = {level}\n"));
        assert_eq!(value(&config, "respectful_logging"), expected);
    }
}

#[test]
fn names_of_the_process_cannot_be_changed_and_the_directory_only_in_name() {
    let directory = directory_with(
        "process_name = x\nservice_name = y\nprocess_id = z\nmail_name = $process_name/$service_name$process_id\n\
         content_filter = $process_id\nsyslog_name = $config_directory\n",
    );
    let config = directory.load(&[]).unwrap();
    assert_eq!(config.mail_name().as_deref(), Ok(b"qmqpd/628".as_slice()));
    let pid = std::process::id().to_string().into_bytes();
    assert_eq!(config.content_filter(), Ok(pid));
    assert_eq!(
        config.syslog_name().as_deref(),
        Ok(&*directory.path().to_string_lossy())
    );
    let renamed = directory.load(&["config_directory=/x"]).unwrap();
    assert_eq!(renamed.syslog_name().as_deref(), Ok("/x"));
    assert_eq!(renamed.main_cf(), config.main_cf());
}

#[test]
fn the_domain_follows_the_host_name_and_the_other_way_round() {
    let names = |main_cf: &str| {
        let config = config(main_cf);
        (config.myhostname().unwrap(), value(&config, "mydomain"))
    };
    let pair = |host: &str, domain: &str| (host.to_owned(), domain.to_owned());
    assert_eq!(names("myhostname = foo\n"), pair("foo", "localdomain"));
    assert_eq!(names("myhostname = a.b.c\n"), pair("a.b.c", "b.c"));
    let kernel = nix::unistd::gethostname().unwrap();
    let kernel = kernel.to_string_lossy();
    if !kernel.contains('.') {
        assert_eq!(
            names(""),
            pair(&format!("{kernel}.localdomain"), "localdomain")
        );
        assert_eq!(
            names("mydomain = foo.org\n"),
            pair(&format!("{kernel}.foo.org"), "foo.org")
        );
    }
}

#[test]
fn host_names_are_checked_with_a_warning_that_says_what_is_wrong() {
    let long = ["a".repeat(60).as_str(); 5].join(".");
    let label = "a".repeat(64);
    let cases = [
        ("a..b", "misplaced delimiter: a..b".to_owned()),
        ("foo.bar.", "misplaced delimiter: foo.bar.".to_owned()),
        (".foo", "misplaced delimiter: .foo".to_owned()),
        ("-foo.bar", "misplaced hyphen: -foo.bar".to_owned()),
        ("foo-.bar", "misplaced hyphen: foo-.bar".to_owned()),
        ("a.-b", "misplaced hyphen: a.-b".to_owned()),
        ("1.2.3.4", "numeric hostname: 1.2.3.4".to_owned()),
        (
            "foo bar",
            "invalid character 32(decimal): foo bar".to_owned(),
        ),
        (
            "caf\u{e9}",
            "invalid character 195(decimal): caf\u{e9}".to_owned(),
        ),
        (&label, format!("hostname label too long: {label}")),
        (&long, format!("bad length 304 for {}...", &long[..100])),
    ];
    for (name, warning) in cases {
        assert_eq!(
            complaints("myhostname", &format!("myhostname = {name}\n")),
            [
                format!("valid_hostname: {warning}"),
                format!("file DIR/main.cf: parameter myhostname: bad parameter value: {name}"),
            ]
        );
    }
    for name in ["_x", "a_b.c", "12.a", &"x".repeat(63), "x", "a--b"] {
        assert_eq!(
            complaint("myhostname", &format!("myhostname = {name}\n")),
            ""
        );
    }
    assert_eq!(
        complaint("myhostname", "myhostname =\n"),
        "bad string length 0 < 1: myhostname = "
    );
}

#[test]
fn the_owner_of_the_mail_is_an_account_without_privileges() {
    let refused = |name: &str| {
        let directory = directory_with(format!("mail_owner = {name}\n"));
        let error = directory.load(&[]).unwrap().mail_owner_ids().unwrap_err();
        directory.anonymous(&error.to_string())
    };
    assert_eq!(
        refused("no-such-user"),
        "file DIR/main.cf: parameter mail_owner: unknown user name value: no-such-user"
    );
    assert_eq!(
        refused("root"),
        "file DIR/main.cf: parameter mail_owner: user root has privileged user ID"
    );
    let config = config("mail_owner = daemon\n");
    let daemon = config.mail_owner_ids().unwrap();
    assert_eq!((daemon.name.as_str(), daemon.uid.as_raw()), ("daemon", 1));
    assert!(daemon.groups.contains(&daemon.gid));
    crate::sys::alarm::init().unwrap();
    assert_eq!(config.mail_owner_ids_apart(), Ok(daemon));
}

#[test]
fn origin_may_be_the_first_line_of_a_file() {
    let directory = directory_with("");
    let file = directory.path().join("mailname");
    fs::write(&file, "mail.example \nx y\n").unwrap();
    let origin = format!("myorigin={}", file.display());
    let config = directory.load(&[&origin]).unwrap();
    assert_eq!(config.myorigin().as_deref(), Ok("mail.example"));
}

#[test]
fn the_first_line_of_that_file_has_a_limit() {
    let directory = directory_with("");
    let file = directory.path().join("mailname");
    let origin = format!("myorigin={}", file.display());
    for (length, taken) in [(ORIGIN_LIMIT, true), (ORIGIN_LIMIT + 1, false)] {
        fs::write(&file, "x".repeat(length) + "\nrest\n").unwrap();
        let config = directory.load(&[&origin]).unwrap();
        let read = config.myorigin().map_err(|error| error.to_string());
        let long = format!(
            "myorigin file {}: the first line is too long",
            file.display()
        );
        let expected = if taken {
            Ok("x".repeat(length))
        } else {
            Err(long)
        };
        assert_eq!(read, expected);
    }
}

#[test]
fn every_default_is_a_value_that_its_parameter_takes() {
    let config = config("");
    for param in TABLE {
        // Depends on the machine's interfaces; `mynetworks` has tests of its own.
        if param.name != "mynetworks" {
            assert_eq!((param.check)(&config), Ok(()), "{}", param.name);
        }
        assert!(param.doc.ends_with('.'), "{}", param.name);
    }
}
