//! The rooms of `src/` use only rooms below them, in the order in which `lib.rs` lists them.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources fails"
)]

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
    assert_eq!(rooms.len(), 14, "{rooms:?}");
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
