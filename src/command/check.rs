//! `qmqpd --check`: prints every error in the configuration.
//!
//! Evaluates all of main.cf and opens the lists as a serving process does; `rehearsal` then takes the further steps of
//! a start. So the findings are those that a start would have. Nothing is logged.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::unistd::{Group, User, geteuid};

use crate::config::{Config, Owner, Place, QueueMethod, TABLE, main_cf_path, read_file};
use crate::exit::Fatal;
use crate::log::{self, Level, Shown};
use crate::lookup::{self, MatchList};
use crate::options::{self, Extent, Options};
use crate::session::{Lists, program_owner, try_queue_directory};

use super::master_cf::Service;
use super::names::Slip;
use super::proxies::Way;
use super::report::{Report, for_people, place};
use super::survey;
use super::unit::{self, Socket, Unit};
use super::{accounts, encoding, items, master_cf, names, proxies, rehearsal};

/// Parameters that only cleanup(8) applies to a message, each with the value that switches it off.
const BYPASSED: &[(&str, &str)] = &[
    ("always_bcc", ""),
    ("body_checks", ""),
    ("canonical_maps", ""),
    ("force_mime_input_conversion", "no"),
    ("header_checks", ""),
    ("in_flow_delay", "0"),
    ("info_log_address_format", "external"),
    ("masquerade_domains", ""),
    ("milter_header_checks", ""),
    ("mime_header_checks", ""),
    ("nested_header_checks", ""),
    ("non_empty_end_of_header_action", "fix_quietly"),
    ("non_smtpd_milters", ""),
    ("queue_file_attribute_count_limit", "100"),
    ("receive_override_options", ""),
    ("recipient_bcc_maps", ""),
    ("recipient_canonical_maps", ""),
    ("sender_bcc_maps", ""),
    ("sender_canonical_maps", ""),
    ("strict_7bit_headers", "no"),
    ("strict_8bitmime", "no"),
    ("strict_8bitmime_body", "no"),
    ("strict_mime_encoding_domain", "no"),
    ("virtual_alias_maps", ""),
    ("virtual_maps", ""),
];

/// The files that a lookup of a name reads, below the root directory.
const RESOLVER_FILES: [&str; 3] = ["etc/hosts", "etc/nsswitch.conf", "etc/resolv.conf"];

/// The process name of a service in master.cf.
const PROCESS: &str = "qmqpd";

/// Makes all checks. Returns the exit status: 0, or 78 if there is an error.
pub fn run(extent: Extent, options: &Options, process: &str) -> u8 {
    let mut report = Report::default();
    check_encoding(&mut report);
    match survey::load(options, process) {
        Ok(config) => check(&mut report, &config, extent, options),
        Err(error) => {
            let advice = "main.cf is read from the directory in the environment variable MAIL_CONFIG, \
                          else from /etc/postfix; options -o stand before other arguments.";
            report.config_error(None, "", &error, Some(advice));
        }
    }
    report.conclude()
}

fn check(report: &mut Report, config: &Config, extent: Extent, options: &Options) {
    list_settings(report, config);
    check_parameters(report, config);
    check_names(report, config);
    if extent == Extent::All {
        check_accounts(report, config);
    }
    check_lists(report, config);
    check_bypassed(report, config);
    let services = master_cf::services(config);
    for service in &services {
        check_service(report, service, extent);
    }
    let sockets = match extent {
        Extent::All => Socket::installed(),
        Extent::Configuration => Vec::new(),
    };
    let of_services = services.iter().map(|service| &service.arguments);
    let all = of_services.chain(sockets.iter().map(|socket| &socket.arguments));
    let configs: Vec<Config> = all.filter_map(|words| config_with(words)).collect();
    proxies::check_use(report, config, &configs);
    if extent == Extent::All {
        if let Some(unit) = Unit::installed() {
            check_unit(report, config, &unit);
        }
        for socket in &sockets {
            check_socket(report, socket);
        }
        rehearsal::run(report, config, options);
    }
}

fn list_settings(report: &mut Report, config: &Config) {
    report.line(&format!("Parameters come from {}.", config.main_cf()));
    for name in TABLE.iter().filter(|p| p.acts).map(|p| p.name) {
        if let Some(value) = survey::changed(config, name) {
            let place = match config.place_of(name) {
                Some(Place::Line(line)) => format!("line {line}"),
                Some(Place::CommandLine) | None => "-o".to_owned(),
            };
            report.line(&format!("  {name} = {value}    ({place})"));
        }
    }
}

/// Checks every parameter, also those that qmqpd does not evaluate: Postfix's own daemons evaluate them.
fn check_parameters(report: &mut Report, config: &Config) {
    for warning in config.take_warnings() {
        report.warning(&warning, None);
    }
    for param in TABLE {
        let result = (param.check)(config);
        for warning in config.take_warnings() {
            report.warning(&warning, None);
        }
        if let Err(error) = result {
            let advice = survey::advice(param);
            report.config_error(Some(config), param.name, &error, Some(&advice));
        }
    }
}

/// Finds bytes that an editor has added to main.cf. Called first, because they may be the reason why main.cf cannot be
/// read.
fn check_encoding(report: &mut Report) {
    let path = main_cf_path();
    for (text, advice) in encoding::problems(&path, &read_file(&path).unwrap_or_default()) {
        report.warning(&text, Some(&advice));
    }
}

/// Finds parameters that no program reads, and `$name`s that no line sets.
fn check_names(report: &mut Report, config: &Config) {
    for Slip { name, meant, .. } in names::unused(config) {
        let place = place(config, &name);
        let advice = meant.map_or_else(
            || "\"man qmqpd\" lists them all.".to_owned(),
            |meant| format!("Did you mean {meant}?"),
        );
        report.warning(
            &format!("{place}: there is no parameter {name}"),
            Some(&advice),
        );
    }
    for Slip {
        parameter,
        name,
        meant,
    } in names::undefined(config)
    {
        let place = place(config, &parameter);
        let advice = meant.map(|meant| format!("Did you mean ${meant}?"));
        let text =
            format!("{place}: {parameter}: ${name} has no value: there is no parameter {name}");
        report.warning(&text, advice.as_deref());
    }
}

/// Postfix's daemons do not start if an account is wrong. Without Postfix only mail_owner is needed, and a machine need not
/// have the others that are there by default.
fn check_accounts(report: &mut Report, config: &Config) {
    let by_postfix = by_cleanup(config);
    for (name, error) in accounts::problems(config) {
        if by_postfix || name == "mail_owner" && geteuid().is_root() {
            report.config_error(Some(config), name, &error, None);
        } else if config.as_set(name).is_some() {
            let text = Report::located(Some(config), name, &error);
            report.warning(&text, Some("No program of Postfix starts here."));
        }
    }
}

/// Checks a service of master.cf: its options, and the configuration with these options.
fn check_service(report: &mut Report, service: &Service, extent: Extent) {
    let place = &service.place;
    let options = match options::parse(&service.arguments) {
        Ok(options) => options,
        Err(error) => {
            let advice = "master(8) starts this again and again, and each client is answered Z.";
            return report.error(&format!("{place}: {error}"), Some(advice));
        }
    };
    if let Some(argument) = &options.stray {
        let error = options::Error::Argument(argument.clone());
        report.error(&format!("{place}: {error}"), None);
    }
    // Errors in main.cf have been reported.
    let Ok(config) = survey::load(&options, PROCESS) else {
        return;
    };
    report.set_service(Some(place));
    if !options.overrides.is_empty() {
        check_parameters(report, &config);
        check_names(report, &config);
        check_lists(report, &config);
        check_bypassed(report, &config);
    }
    match service.kind.as_str() {
        "unix" => proxies::check_way(report, &config, place, Way::Unix),
        "pass" => proxies::check_way(report, &config, place, Way::Passed),
        _ => {}
    }
    if extent == Extent::All {
        check_program(report, service);
        if service.has_chroot {
            check_chroot(report, &config, place);
        }
    }
    report.set_service(None);
}

/// The configuration with the arguments of a service, if it can be read.
fn config_with(arguments: &[OsString]) -> Option<Config> {
    let options = options::parse(arguments).ok()?;
    survey::load(&options, PROCESS).ok()
}

/// Whether master starts this program.
fn check_program(report: &mut Report, service: &Service) {
    let (place, path) = (&service.place, service.program.display());
    match (
        fs::metadata(&service.program),
        fs::metadata("/proc/self/exe"),
    ) {
        (Err(error), _) => {
            let text = format!("{place}: {path}: {}", log::error_text(&error));
            report.error(
                &text,
                Some("Install qmqpd there, or name the place where it is."),
            );
        }
        (Ok(there), Ok(own))
            if (there.dev(), there.ino()) != (own.dev(), own.ino())
                && (there.len() != own.len()
                    || fs::read(&service.program).ok() != fs::read("/proc/self/exe").ok()) =>
        {
            report.note(&format!(
                "{place}: {path} is another program than this one."
            ));
        }
        (Ok(_), _) => {}
    }
}

/// Whether names can be looked up below queue_directory.
fn check_chroot(report: &mut Report, config: &Config, place: &str) {
    let (Ok(queue), Ok(true)) = (config.queue_directory(), config.qmqpd_peername_lookup()) else {
        return;
    };
    let missing = RESOLVER_FILES
        .iter()
        .map(|file| queue.join(file))
        .filter(|path| !path.exists());
    for path in missing {
        let text = format!(
            "{place}: the service has a chroot without {}",
            path.display()
        );
        let advice =
            "No client's name can be looked up there. Copy the file, or write n for chroot.";
        report.warning(&text, Some(advice));
    }
}

/// Whether sessions that systemd starts have the memory for a message and can reach the queue.
fn check_unit(report: &mut Report, config: &Config, unit: &Unit) {
    let path = unit.path.display();
    let limit = config.message_size_limit().ok().flatten();
    if let Some(needed) = unit.lacks_memory(limit.unwrap_or(0)) {
        let text = match limit {
            Some(limit) => format!(
                "{path}: MemoryMax= is too small for a message of {limit} bytes (message_size_limit)"
            ),
            None => format!("{path}: MemoryMax= is set, and message_size_limit = 0 is no limit"),
        };
        let advice = match limit {
            Some(_) => format!(
                "A session that needs more is killed without an answer. Set MemoryMax={} or more.",
                needed
            ),
            None => {
                "A session that needs more is killed without an answer. Set message_size_limit."
                    .to_owned()
            }
        };
        report.warning(&text, Some(&advice));
    }
    let name = &unit.user;
    let Ok(Some(user)) = User::from_name(name) else {
        let text = format!("{path}: there is no user {name}");
        return report.warning(
            &text,
            Some("User= must be an account; systemd starts no session without it."),
        );
    };
    let queue = match (
        config.queue_directory(),
        config.qmqpd_queue_method(),
        config.cleanup_service_name(),
    ) {
        (Ok(queue), Ok(QueueMethod::Cleanup), Ok(service)) => queue.join("public").join(service),
        (Ok(queue), Ok(QueueMethod::File), _) => queue.join("incoming"),
        _ => return,
    };
    if let Some(part) = unit::out_of_reach(&user, &queue) {
        let text = format!(
            "{path}: user {name} cannot reach {}: {} is closed to it",
            queue.display(),
            part.display()
        );
        report.warning(&text, Some("Set User= to mail_owner, in a drop-in."));
    }
}

/// Warns of a socket of systemd's on which no header of a proxy can arrive.
fn check_socket(report: &mut Report, socket: &Socket) {
    if let (Some(at), Some(config)) = (socket.unix(), config_with(&socket.arguments)) {
        let place = format!("{}: ListenStream={at}", socket.path.display());
        proxies::check_way(report, &config, &place, Way::Unix);
    }
}

fn by_cleanup(config: &Config) -> bool {
    matches!(config.qmqpd_queue_method(), Ok(QueueMethod::Cleanup))
}

fn check_lists(report: &mut Report, config: &Config) {
    let lists = try_queue_directory(config)
        .map_err(Fatal::from)
        .and_then(|()| Lists::open(config));
    let mut kept = log::take_kept();
    // The warning asks for a package, and so does the advice of the error that follows it.
    kept.retain(|(_, text)| !text.ends_with(lookup::PACKAGE_QUESTION));
    for (level, text) in &kept {
        let place = place(config, list_in(text));
        match level {
            Level::Info => {}
            Level::Warning => report.warning(&format!("{place}: {text}"), None),
            Level::Error | Level::Fatal | Level::Panic => {
                report.error(&format!("{place}: {text}"), advice_for(text));
            }
        }
    }
    let lists = match lists {
        Ok(lists) => lists,
        // Reported with its parameter.
        Err(Fatal::Config(_) | Fatal::Logged) => return,
        Err(Fatal::Parameter(name, text)) => {
            let place = place(config, name);
            return report.error(&format!("{place}: {text}"), None);
        }
        Err(Fatal::Text(text)) => {
            let place = place(config, list_in(&text));
            return report.error(&format!("{place}: {text}"), None);
        }
    };
    let all = [
        Some(&lists.qmqpd_authorized_clients),
        lists.debug_peer_list.as_ref(),
        lists.qmqpd_upstream_proxy_clients.as_ref(),
    ];
    let run_as = || program_owner(config);
    let all = || all.into_iter().flatten();
    for list in all() {
        check_items(report, config, list, &kept);
    }
    let problems = |list: &MatchList| list.problems(&lists.tables, &run_as);
    for problem in all().flat_map(problems) {
        // The table does not answer because it could not be opened, which has been reported.
        if kept.iter().any(|(_, text)| problem.text.ends_with(text)) {
            continue;
        }
        let place = problem
            .place
            .unwrap_or_else(|| place(config, list_in(&problem.text)));
        let mut advice =
            "A client whose evaluation comes to this item is answered Z, try later.".to_owned();
        if problem.text.contains(&log::errno_text(Errno::EACCES)) {
            advice.push_str(&readers(config).unwrap_or_default());
        }
        let text = for_people(&problem.text);
        report.error(&format!("{place}: {text}"), Some(&advice));
    }
    // Warnings of tables that do answer.
    for (_, text) in log::take_kept() {
        report.warning(&format!("{}: {text}", place(config, list_in(&text))), None);
    }
    check_access(report, config, &lists);
    proxies::check(report, config, &lists);
}

/// Warns of items that no client can match. A serving process does not.
fn check_items(report: &mut Report, config: &Config, list: &MatchList, kept: &[(Level, String)]) {
    let name = list.name();
    let names = config.qmqpd_peername_lookup().unwrap_or(true);
    for item in list.literals() {
        let bare = item.pattern.trim_matches(['[', ']']);
        // The warning about brackets has the right form of the item.
        if kept
            .iter()
            .any(|(_, text)| text.contains(&format!("\"{bare}\" without brackets")))
        {
            continue;
        }
        let is_of_proxies = name == proxies::LIST;
        let advice = if is_of_proxies {
            items::advice_for_a_proxy(&item)
        } else {
            items::advice(&item, names)
        };
        if let Some(advice) = advice {
            let place = item.place.clone().unwrap_or_else(|| place(config, name));
            let pattern = Shown(item.pattern.as_bytes());
            let whom = if is_of_proxies { "proxy" } else { "client" };
            let text = format!("{place}: {name}: \"{pattern}\" can match no {whom}");
            report.warning(&text, Some(&advice));
        }
    }
}

/// The list that a message is about: the first word, if it names a list.
fn list_in(text: &str) -> &'static str {
    let first = text.split(':').next().unwrap_or_default();
    let others = [
        "debug_peer_list",
        "parent_domain_matches_subdomains",
        "qmqpd_upstream_proxy_clients",
    ];
    others
        .into_iter()
        .find(|list| *list == first)
        .unwrap_or("qmqpd_authorized_clients")
}

fn check_access(report: &mut Report, config: &Config, lists: &Lists) {
    let name = "qmqpd_authorized_clients";
    let place = place(config, name);
    if survey::is_empty_list(config, name) {
        let advice = "To let this machine in: qmqpd_authorized_clients = 127.0.0.1, [::1]";
        return report.warning(
            &format!("{place}: {name} is empty: no client may send"),
            Some(advice),
        );
    }
    if survey::has_everybody(&lists.qmqpd_authorized_clients, Some("unknown")) {
        let advice = "QMQP has no password: list the addresses of the clients.";
        let text = format!("{place}: {name} lets every client in");
        report.warning(&text, Some(advice));
    }
}

fn check_bypassed(report: &mut Report, config: &Config) {
    let Ok(method) = config.qmqpd_queue_method() else {
        return;
    };
    if method == QueueMethod::Cleanup {
        return;
    }
    for (name, idle) in BYPASSED {
        let set = config.as_set(name);
        if set.is_some_and(|value| *value != *idle.as_bytes()) {
            let place = place(config, name);
            let text = format!("{place}: {name} does not apply: messages do not pass cleanup(8)");
            report.warning(&text, Some("qmqpd_queue_method = cleanup makes it apply."));
        }
    }
}

/// How to let the user read a table who runs its program, if that is not the user of this process.
fn readers(config: &Config) -> Option<String> {
    let Owner { name, gid, .. } = program_owner(config).ok().flatten()?;
    let group = Group::from_gid(gid).ok().flatten();
    let group = group.map_or_else(|| gid.to_string(), |group| group.name);
    Some(format!(
        " User {name} reads this table: \"chgrp {group}\" and \"chmod g+r\" give that user the right."
    ))
}

fn advice_for(text: &str) -> Option<&'static str> {
    if text.contains(&log::errno_text(Errno::EACCES)) {
        return Some(
            "Lists are opened as the user that starts qmqpd: start qmqpd as root, or let that user read them.",
        );
    }
    if text.starts_with("unsupported dictionary type: ") {
        return Some(
            "The text before a colon is a type of table. Some types have packages of their own (postfix-pcre). The items of a list have no port and no protocol.",
        );
    }
    let unmade =
        text.starts_with("open database ") && text.contains(&log::errno_text(Errno::ENOENT));
    unmade.then_some("postmap(1) makes the database of an indexed table.")
}
