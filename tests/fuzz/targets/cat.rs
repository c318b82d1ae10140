//! `--cat` of files of any bytes: it ends, and shows no more than is there.

use std::path::Path;

use crate::command::cat::cat as show;

/// The file.
pub fn cat(data: &[u8]) {
    let mut out = Vec::new();
    let is_whole = show(Path::new("F"), data, &mut out, |_| {}).unwrap();
    // Two bytes are a record, and its name and the time in it may take 60.
    assert!(out.len() <= 100 + 40 * data.len(), "{} bytes", out.len());
    assert!(out.starts_with(b"*** ENVELOPE RECORDS F ***\n"));
    assert!(!is_whole || out.ends_with(b"*** MESSAGE FILE END F ***\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;
    use crate::wire::record::{Type, put};

    #[test]
    fn any_file_is_shown() {
        random::run("cat", cat, |random| {
            let mut file = Vec::new();
            for _ in 0..random.below(8) {
                let kind = [
                    Type::Size,
                    Type::Time,
                    Type::From,
                    Type::Mesg,
                    Type::Norm,
                    Type::Cont,
                    Type::Xtra,
                    Type::End,
                ];
                let kind = kind[random.below(kind.len())];
                let data = random.text(
                    3,
                    &[
                        "create_time=",
                        "1700000000",
                        " 5",
                        "x",
                        "-9",
                        "99999999999999",
                    ],
                );
                if random.below(5) == 0 {
                    file.extend_from_slice(b"p\x02");
                    file.extend(format!("{:2}", random.below(60)).bytes());
                }
                put(&mut file, kind, &[&data]);
            }
            random.damage(&mut file);
            file
        });
    }
}
