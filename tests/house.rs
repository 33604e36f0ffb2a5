//! The rules of the house that the compiler does not check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::Sandbox;

#[test]
fn rooms_look_downward_only() {
    let rooms = rooms();
    let mut wrong = Vec::new();
    for (height, room) in rooms.iter().enumerate() {
        for (file, text) in sources_of(room) {
            for used in crate_paths(&text) {
                if rooms[..height].contains(&used) {
                    wrong.push(format!("{}: `{room}` uses `{used}`, which stands above it", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_belongs_to_a_room_or_to_the_binary() {
    let mut known: BTreeSet<String> = rooms().into_iter().collect();
    known.extend(["lib", "main", "cli"].map(str::to_owned));
    let mut entries: Vec<String> = fs::read_dir(project().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    entries.sort();
    assert_eq!(entries, Vec::from_iter(known));
}

#[test]
fn unsafe_code_stays_in_sys() {
    let sys = project().join("src/sys");
    let wrong =
        find_in_code("src", |line| words(line).any(|word| word == "unsafe"), |file| !file.starts_with(&sys));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where events go and where things lie is decided by who calls the library.
#[test]
fn the_library_prints_nothing_and_reads_no_surroundings() {
    let src = project().join("src");
    let library = |file: &Path| !file.starts_with(src.join("cli")) && file != src.join("main.rs");
    // The embedded runtime becomes the container: it sets its umask and proves where it stands.
    let runtime = src.join("runtime");
    let macros = ["println", "eprintln", "print", "eprint", "dbg"];
    let mut wrong =
        find_in_code("src", |line| macros.iter().any(|name| line.contains(&format!(" {name}!("))), library);
    let reads = ["env::var", "env::current_dir", "env::set_", "env::temp_dir", "env::home_dir"];
    wrong.extend(find_in_code("src", |line| reads.iter().any(|read| line.contains(read)), library));
    let own = |line: &str| line.contains("umask(") || line.contains("getcwd(");
    wrong.extend(find_in_code("src", own, |file| library(file) && !file.starts_with(&runtime)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_first_line_of_a_file_says_what_it_is_about() {
    let files = [rust_files(&project().join("src")), rust_files(&project().join("tests"))].concat();
    // What is copied into images is no part of the house.
    let fixtures = project().join("tests/dockerfiles");
    let ours = files.iter().filter(|file| !file.starts_with(&fixtures));
    let silent = ours.filter(|file| !fs::read_to_string(file).unwrap().starts_with("//! "));
    assert_eq!(silent.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn no_test_file_is_forgotten() {
    let main = fs::read_to_string(project().join("tests/main.rs")).unwrap();
    let listed: BTreeSet<String> = main
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let present: BTreeSet<String> = fs::read_dir(project().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "main")
        .collect();
    assert_eq!(listed, present);
}

/// In the run of the others it would hold a thread until it has its machine, and two machines could be at work at once.
#[test]
fn every_test_file_that_starts_a_machine_is_in_the_run_of_those() {
    let script = fs::read_to_string(project().join("tests/all")).unwrap();
    let line =
        script.lines().find_map(|line| line.strip_prefix("with_machines=(")?.strip_suffix(')')).unwrap();
    let listed: BTreeSet<String> =
        line.split(' ').map(|name| name.split("::").next().unwrap().into()).collect();
    let tests = project().join("tests");
    // This file has it in two.
    let start = ["Machine::new()", "."].concat();
    let starts = |file: &&PathBuf| fs::read_to_string(file).unwrap().contains(&start);
    let top = |file: &PathBuf| {
        let first = file.strip_prefix(&tests).unwrap().components().next().unwrap();
        Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let with_machines: BTreeSet<String> = rust_files(&tests).iter().filter(starts).map(top).collect();
    assert_eq!(listed, with_machines);
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let text = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let mut wrong = Vec::new();
    let mut dependencies = false;
    let mut above = "";
    for line in text.lines() {
        if line.starts_with('[') {
            dependencies = line.ends_with("dependencies]");
        } else if dependencies && !line.is_empty() && !line.starts_with('#') && !above.starts_with('#') {
            wrong.push(line);
        }
        above = line;
    }
    assert!(wrong.is_empty(), "without a comment above: {wrong:#?}");
}

#[test]
fn every_verb_has_help_with_an_example() {
    let sandbox = Sandbox::new();
    let mut open = vec![Vec::<String>::new()];
    let mut verbs = 0;
    while let Some(path) = open.pop() {
        let mut words = path.clone();
        words.push("--help".into());
        let help = sandbox.outcrop(&words).ok().stdout();
        let below = commands_in(&help);
        if below.is_empty() {
            verbs += 1;
            let example =
                help.split_once("\nExample").is_some_and(|(_, below)| below.contains("\n  outcrop "));
            assert!(example, "`outcrop {} --help` shows no example:\n{help}", path.join(" "));
        }
        open.extend(below.into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    assert!(verbs > 0);
}

/// The first words of the lines below `Commands:` and `Management commands:`.
fn commands_in(help: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut listing = false;
    for line in help.lines() {
        match line.strip_prefix("  ") {
            _ if line.to_lowercase().ends_with("commands:") => listing = true,
            Some(entry) if listing => names.extend(entry.split_whitespace().next().map(str::to_owned)),
            _ => listing = false,
        }
    }
    names
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Top first, as `src/lib.rs` lists them.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(project().join("src/lib.rs")).unwrap();
    let rooms = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    rooms.map(str::to_owned).collect()
}

fn sources_of(room: &str) -> Vec<(PathBuf, String)> {
    let mut files = rust_files(&project().join("src").join(room));
    files.extend(Some(project().join(format!("src/{room}.rs"))).filter(|file| file.exists()));
    assert!(!files.is_empty(), "no source of room `{room}`");
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(&file).unwrap())).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The first name of every path that begins with `crate::`, those in braces too.
fn crate_paths(text: &str) -> Vec<String> {
    let code: String = text.lines().map(|line| format!("{}\n", code_of(line))).collect();
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.extend(words(rest).next().map(str::to_owned)),
        }
    }
    found
}

/// `a::{b, c}, d}` begins with `a` and `d`.
fn first_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(words(&list[start..at]).next().map(str::to_owned));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// A line without its comment and without what stands in string literals that begin and end on it.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut letters = line.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => drop(letters.next()),
            // The character literal '"' quotes nothing.
            '"' if !code.ends_with('\'') => quoted = !quoted,
            '/' if !quoted && letters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(letter),
        }
    }
    code
}

/// Lines of code that match, tests left out (they stand last in a file).
fn find_in_code(
    below: &str,
    matches: impl Fn(&str) -> bool,
    concerned: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let files = rust_files(&project().join(below));
    for file in files.into_iter().filter(|file| concerned(file) && !is_for_tests(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for (number, line) in lines.enumerate() {
            if matches(&format!(" {}", code_of(line))) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

/// Declared `#[cfg(test)] mod name;` by the file above it.
fn is_for_tests(file: &Path) -> bool {
    let above = fs::read_to_string(file.with_file_name("mod.rs")).unwrap_or_default();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let declared = format!("mod {name};");
    above.lines().zip(above.lines().skip(1)).any(|(before, line)| {
        before == "#[cfg(test)]"
            && line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ") == declared
    })
}

#[test]
fn paths_are_found_in_every_form() {
    let text = "use crate::job::{Job, Report};\nuse crate::{error::{Error, Kind}, image, sys::dir};\n\
                fn f() -> crate::db::Row { \"crate::cli\"; mycrate::x() } // crate::verb\n";
    assert_eq!(crate_paths(text), ["job", "error", "image", "sys", "db"]);
}
