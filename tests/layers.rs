//! The rooms of `src/` use only rooms below them, in the order in which `lib.rs` lists them; and no files of a room import
//! each other in a circle.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names that stand behind `crate::` on a line.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let rooms: Vec<&str> = lib
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        })
        .collect();
    assert_eq!(rooms.len(), 15, "{rooms:?}");
    let rank = |name: &str| rooms.iter().position(|room| *room == name);

    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut uses = 0;
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        let top = path.iter().next().unwrap().to_str().unwrap();
        let Some(own) = rank(top.trim_end_matches(".rs")) else {
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            assert!(
                !line.contains("crate::{"),
                "{path:?}: spell imports crate::NAME"
            );
            for name in used(line) {
                uses += 1;
                match rank(name) {
                    Some(other) if other >= own => {}
                    _ => wrong.push(format!("{}:{}: {line}", path.display(), number + 1)),
                }
            }
        }
    }
    assert!(uses > 50, "only {uses} uses seen: is the scan broken?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A name with the modules around it, `lookup::text::lines`.
type Name = Vec<String>;

/// Which names each module has from others, as they are written from the root. The module of `lookup/text.rs` is
/// `lookup::text`, that of `lookup/mod.rs` is `lookup`.
type Imports = BTreeMap<Name, Vec<Name>>;

/// A file's text without comments and strings, up to its unit tests.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().map(|line| {
        let outside: Vec<&str> = line.split('"').step_by(2).collect();
        outside.join(" ").split("//").next().unwrap().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Splits a path off `text`, with all its branches: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &mut &str, before: &[String], found: &mut Vec<Name>) {
    let mut path = before.to_vec();
    loop {
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        path.push(text[..end].to_owned());
        *text = &text[end..];
        let Some(rest) = text.strip_prefix("::") else {
            found.push(path);
            return;
        };
        *text = rest;
        if let Some(inside) = text.strip_prefix('{') {
            *text = inside.trim_start();
            while !text.starts_with('}') {
                paths(text, &path, found);
                *text = text.trim_start_matches(|c| !",}".contains(c));
                *text = text.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            }
            return;
        }
    }
}

/// The names that a module has from others: paths that begin with `crate`, `super`, `self` or a module of its own.
fn imports(module: &Name, code: &str) -> Vec<Name> {
    let children = code.lines().filter_map(|line| {
        let (_, child) = line.strip_suffix(';')?.split_once("mod ")?;
        Some(child)
    });
    let starts: Vec<&str> = children.chain(["crate", "super", "self"]).collect();
    let mut rest = code;
    let mut all = Vec::new();
    while let Some(start) = rest.find(is_name) {
        let is_path = rest[..start].ends_with("::");
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if is_path || !starts.contains(&&rest[..end]) || !rest[end..].starts_with("::") {
            rest = &rest[end..];
            continue;
        }
        let mut found = Vec::new();
        paths(&mut rest, &[], &mut found);
        all.extend(found.into_iter().map(|path| from_root(module, &path)));
    }
    all
}

fn from_root(module: &Name, path: &[String]) -> Name {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match path[0].as_str() {
        "crate" => (&[][..], &path[1..]),
        "self" => (&module[..], &path[1..]),
        _ => (&module[..module.len() - ups], &path[ups..]),
    };
    [base, rest].concat()
}

/// The module that has `name`, as seen from the module `user`. What a directory's `mod.rs` offers is there for all of its
/// files, and makes no circle.
fn owner(name: &[String], user: &Name, all: &Imports) -> Option<Name> {
    let mut modules = (1..=name.len()).rev().map(|length| &name[..length]);
    let module = modules.find(|module| all.contains_key(*module))?;
    (!user.starts_with(module)).then(|| module.to_vec())
}

/// The modules that `module` comes to by imports of its room, over any number of others.
fn reached(module: &Name, all: &Imports) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let mut next = vec![module.clone()];
    while let Some(user) = next.pop() {
        for name in &all[&user] {
            let Some(owner) = owner(name, &user, all) else {
                continue;
            };
            if owner[0] == user[0] && reached.insert(owner.clone()) {
                next.push(owner);
            }
        }
    }
    reached
}

/// The sets of modules that import each other.
fn circles(all: &Imports) -> BTreeSet<Vec<Name>> {
    let reached: BTreeMap<&Name, _> = all.keys().map(|own| (own, reached(own, all))).collect();
    let circle = |own: &Name| {
        let mutual = reached[own]
            .iter()
            .filter(|other| reached[other].contains(own));
        mutual.cloned().collect::<Vec<Name>>()
    };
    let found = all.keys().map(circle);
    found.filter(|circle| circle.len() > 1).collect()
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut all = Imports::new();
    let mut names = BTreeMap::new();
    for file in files {
        let path = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Name = module.split('/').map(str::to_owned).collect();
        let code = code(&fs::read_to_string(&file).unwrap());
        all.insert(module.clone(), imports(&module, &code));
        names.insert(module, path);
    }
    let inside: usize = all.values().map(Vec::len).sum();
    assert!(
        inside > 500,
        "only {inside} imports seen: is the scan broken?"
    );
    let found: Vec<String> = circles(&all)
        .iter()
        .map(|circle| {
            let files: Vec<&str> = circle.iter().map(|module| names[module].as_str()).collect();
            files.join(" ")
        })
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let modules = [
        ("a", "mod b;\nmod c;\nmod d;\nfn f() { c::two(); }"),
        (
            "a::b",
            "use super::c::{self, Two};\nuse super::d::{four as five};",
        ),
        (
            "a::c",
            "// super::d::four\nfn two() -> super::b::One { text(\"super::d\") }",
        ),
        ("a::d", "use crate::a::f;\nfn four() {}"),
    ];
    let all: Imports = modules
        .iter()
        .map(|(module, text)| {
            let module: Name = module.split("::").map(str::to_owned).collect();
            let imports = imports(&module, &code(text));
            (module, imports)
        })
        .collect();
    let circle = [["a", "b"], ["a", "c"]].map(|module| module.map(str::to_owned).to_vec());
    assert_eq!(circles(&all), BTreeSet::from([circle.to_vec()]));
}

/// The words that hide who acts: a client, a user, a program.
const HIDING: [&str; 5] = ["whoever", "nobody", "somebody", "anybody", "whatever"];

#[test]
fn comments_say_who_acts_and_each_file_has_a_head() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut hiding = Vec::new();
    let mut headless = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let comments = text
            .lines()
            .filter(|line| line.trim_start().starts_with("//"));
        for line in comments {
            let words = line.to_lowercase();
            // The user of that name has to be named.
            let words = words.replace("user nobody", "");
            if HIDING.iter().any(|word| words.contains(word)) {
                hiding.push(format!("{}: {line}", file.display()));
            }
        }
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        let lines = head.count();
        if !(2..=8).contains(&lines) && !file.ends_with("main.rs") {
            headless.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(files.len() > 100, "only {} files", files.len());
    assert!(hiding.len() <= 12, "{hiding:#?}");
    assert_eq!(headless, [""; 0]);
}
