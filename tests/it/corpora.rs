//! What was found worth keeping of fuzzing: each parser still takes it without a panic.

use std::{fs, path::Path};

#[path = "../../fuzz/parsers.rs"]
mod parsers;

type Parser = fn(&[u8]);

#[test]
fn every_kept_input_is_taken_without_a_panic() {
    let parsers: [(&str, Parser); 9] = [
        ("ext_authz", parsers::ext_authz),
        ("authzen", parsers::authzen),
        ("mcp", parsers::mcp),
        ("hook", parsers::hook),
        ("manifest", parsers::manifest),
        ("condition", parsers::condition),
        ("sync", parsers::sync),
        ("jwt", parsers::jwt),
        ("access", parsers::access),
    ];
    for (name, parse) in parsers {
        let folder = Path::new("tests/corpora").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            parse(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
