//! `check-config` of each service: everything that is wrong, at once, each with its place.

use std::{fs, process::Output};

use tests::{
    harness::{configuration, run},
    rules::Rules,
};
use xtask::servers::Scratch;

const BROKEN: &str = r#"[ingest]
listen = "somewhere"
listne = "127.0.0.1:8080"

[[orgs]]
id = "Demo"
time_zone = "Mars/Phobos"
windows = [7, 7]
[[orgs.sources]]
key = "demo-crm"
verify = "jwt"
secrets = [{ label = "current", secret = "hunter2" }]
[[orgs.boards]]
id = 9001
won = [2]
lost = [2]
"#;

const BINARIES: [&str; 3] = ["ingest", "projector", "query-api"];

fn check(binary: &str, text: &str, environment: &[(&str, &str)]) -> Output {
    let scratch = Scratch::new("config").unwrap();
    let file = scratch.path().join("leadpulse.toml");
    fs::write(&file, text).unwrap();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(binary, &["check-config", "--config", file.to_str().unwrap()], &environment).unwrap()
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr];
    texts.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn a_good_file_is_ok() {
    for binary in BINARIES {
        let environment = [("TEST_SIGNING_SECRET", "a-secret-that-is-long-enough-to-sign")];
        let output = check(binary, &configuration(&Rules::default()), &environment);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{binary}: {said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("ok"), "{binary}: {said}");
        assert!(!said.contains("a-secret-that-is-long-enough-to-sign"));
    }
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_at_once_with_its_place() {
    for binary in BINARIES {
        let output = check(binary, BROKEN, &[("CACHE_TTL_SECONDS", "soon")]);
        assert_eq!(output.status.code(), Some(2), "{binary}");
        let said = said(&output);
        let places =
            ["toml:2:", "toml:3:", "toml:6:", "toml:7:", "toml:8:", "toml:12:", "toml:13:"];
        for place in places.iter().chain(&["CACHE_TTL_SECONDS"]) {
            assert!(said.contains(place), "{binary} does not tell {place}:\n{said}");
        }
        assert!(!said.contains("hunter2"), "{binary} repeats a secret:\n{said}");
    }
}

#[test]
fn a_broken_file_stops_a_service_before_it_opens_a_port() {
    for binary in BINARIES {
        let scratch = Scratch::new("config").unwrap();
        let file = scratch.path().join("leadpulse.toml");
        fs::write(&file, BROKEN).unwrap();
        let output = run(binary, &["--config", file.to_str().unwrap()], &[]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{binary}");
        assert!(!said(&output).contains("listening"), "{binary}");
    }
}

#[test]
fn only_the_one_who_verifies_needs_the_signing_secret() {
    let output = check("ingest", &configuration(&Rules::default()), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("TEST_SIGNING_SECRET"), "{}", said(&output));
    let output = check("projector", &configuration(&Rules::default()), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}
