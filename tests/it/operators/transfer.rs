use std::{fs, io::Read};

use serde_json::json;
use tests::harness::{Message, PATIENCE, Projection, wait_until};

use super::{history, json, last_audit, operate, refused, setup};

/// What makes a message the one it is.
fn identity(message: &Message) -> (Option<String>, String, String) {
    (message.message_id.clone(), message.subject.clone(), message.event.clone())
}

async fn filled(seed: u64) -> Projection {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(20, 400, seed)).await;
    projection.check().await;
    projection
}

#[tokio::test]
async fn an_export_makes_the_same_stream_and_the_same_rows_elsewhere_and_twice_is_once() {
    let from = filled(71).await;
    let folder = tempfile();
    let file = format!("{folder}/all.ndjson.zst");
    let exported = json(&from, 0, &["export", "--output", &file]);
    assert_eq!(exported["messages"], from.arrivals.len());
    assert!(refused(&from, 1, &["export", "--output", &file]).contains("can't be created"));

    let mut to = Projection::start(setup()).await;
    to.settle().await;
    assert!(refused(&to, 2, &["import", &file]).contains("--yes"));
    let imported = json(&to, 0, &["import", &file, "--yes", "--reason", "a move"]);
    assert_eq!(imported["published"], from.arrivals.len());
    let (a, b) = (from.ground.stream().await, to.ground.stream().await);
    assert_eq!(
        a.iter().map(identity).collect::<Vec<_>>(),
        b.iter().map(identity).collect::<Vec<_>>()
    );
    to.arrivals = from.arrivals.clone();
    to.check().await;
    let again = json(&to, 0, &["import", &file, "--yes"]);
    assert_eq!((&again["published"], &again["known"]), (&json!(0), &json!(from.arrivals.len())));
    assert_eq!(last_audit(&to)["command"], "import");
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_whole_or_was_changed_is_refused_before_anything_is_published() {
    let from = filled(72).await;
    let folder = tempfile();
    let file = format!("{folder}/plain.ndjson");
    json(&from, 0, &["export", "--plain", "--output", &file]);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let to = Projection::start(setup()).await;
    to.settle().await;
    let broken = format!("{folder}/broken.ndjson");
    for (content, wanted) in [
        (lines[..lines.len() - 1].join("\n"), "not whole"),
        ([&lines[..5], &lines[6..]].concat().join("\n"), "was changed"),
        (text.replacen("demo", "dem0", 3), "was changed"),
        (lines[1..].join("\n"), "does not begin as an export"),
    ] {
        fs::write(&broken, content).unwrap();
        let said = refused(&to, 1, &["import", &broken, "--yes"]);
        assert!(said.contains(wanted), "{said}");
        assert!(to.ground.stream().await.is_empty());
    }
    let output = operate(&from, &["export"]);
    let mut unpacked = String::new();
    let packed: Result<_, _> = zstd::Decoder::new(output.stdout.as_slice());
    packed.unwrap().read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked.lines().count(), lines.len(), "stdout has the data and nothing else");
    fs::remove_dir_all(folder).unwrap();
}

/// The shell bounds the size of files as a full disk would; the signal of it is ignored.
#[tokio::test]
async fn an_export_that_fails_leaves_no_file() {
    let from = filled(75).await;
    let folder = tempfile();
    let file = format!("{folder}/all.ndjson");
    let export = from.ground.command("projector", &["export", "--plain", "--output", &file]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]);
    shell.arg(export.get_program()).args(export.get_args()).env_clear();
    shell.envs(export.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let failed = shell.output().unwrap();
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("too large"), "{said}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "neither the file nor a part of it");
    json(&from, 0, &["export", "--plain", "--output", &file]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_masked_copy_has_no_names_and_the_same_figures() {
    let from = filled(73).await;
    let folder = tempfile();
    let (file, key) = (format!("{folder}/masked.ndjson"), format!("{folder}/key"));
    fs::write(&key, "a key for masking that is long").unwrap();
    let mask = format!("file:{key}");
    json(&from, 0, &["export", "--plain", "--mask", &mask, "--output", &file]);
    let text = fs::read_to_string(&file).unwrap();
    for lead in from.leads().await.values() {
        if let Some(name) = lead.name.as_deref().filter(|name| name.chars().count() > 6) {
            assert!(!text.contains(&serde_json::to_string(name).unwrap()), "{name} is in the copy");
        }
    }
    let to = Projection::start(setup()).await;
    to.settle().await;
    json(&to, 0, &["import", &file, "--yes"]);
    wait_until("the copy is projected", PATIENCE, async || {
        let status = operate(&to, &["status", "--json"]);
        status.status.code() == Some(0) && to.leads().await.len() == from.leads().await.len()
    })
    .await;
    let unnamed = async |projection: &Projection| {
        let mut leads = projection.leads().await;
        leads.values_mut().for_each(|lead| lead.name = None);
        leads
    };
    let last = i64::try_from(from.last_seq()).unwrap();
    wait_until("everything is applied", PATIENCE, async || {
        let shown = json(&to, 0, &["checkpoint", "show"]);
        shown["applied_seq"].as_i64() >= Some(last)
    })
    .await;
    assert_eq!(unnamed(&to).await, unnamed(&from).await);
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_export_of_a_span_has_what_the_stream_stored_in_it() {
    let mut from = Projection::start(setup()).await;
    from.publish(&history(10, 100, 76)).await;
    let (early, between) = (from.arrivals.len(), from.last_seq());
    // The stream's clock, and its next instant.
    let stream = from.jetstream().await.get_stream("LEADPULSE_EVENTS").await.unwrap();
    let stored = stream.get_raw_message(between).await.unwrap().time;
    wait_until("the clock goes on", PATIENCE, async || {
        chrono::Utc::now().timestamp_millis() > stored.unix_timestamp() * 1000 + 1000
    })
    .await;
    let at = chrono::Utc::now().to_rfc3339();
    from.publish(&history(10, 100, 77)).await;
    let late = from.arrivals.len() - early;
    let folder = tempfile();
    let (since, until) = (format!("{folder}/since"), format!("{folder}/until"));
    let exported = json(&from, 0, &["export", "--since", &at, "--output", &since]);
    assert_eq!((&exported["messages"], &exported["from_seq"]), (&json!(late), &json!(between + 1)));
    let exported = json(&from, 0, &["export", "--until", &at, "--output", &until]);
    assert_eq!((&exported["messages"], &exported["to_seq"]), (&json!(early), &json!(between)));
    let nothing = json(&from, 0, &["export", "--until", "2h", "--output", &format!("{folder}/no")]);
    assert_eq!(nothing["messages"], 0);
    assert!(refused(&from, 2, &["export", "--since", "soon"]).contains("--since"));
    // The parts make the whole, in any order.
    let mut to = Projection::start(setup()).await;
    to.settle().await;
    for part in [&until, &since] {
        json(&to, 0, &["import", part, "--yes"]);
    }
    to.arrivals = from.arrivals.clone();
    to.check().await;
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_masked_file_is_not_mixed_with_names_unless_that_is_meant() {
    let from = filled(78).await;
    let folder = tempfile();
    let (file, key) = (format!("{folder}/masked.ndjson.zst"), format!("{folder}/key"));
    fs::write(&key, "a key for masking that is long").unwrap();
    json(&from, 0, &["export", "--mask", &format!("file:{key}"), "--output", &file]);
    let mut to = Projection::start(setup()).await;
    to.publish(&history(3, 10, 79)).await;
    to.settle().await;
    let before = to.ground.stream().await.len();
    let said = refused(&to, 1, &["import", &file, "--yes"]);
    assert!(
        said.contains("events of demo that are not") && said.contains("--allow-masked"),
        "{said}"
    );
    assert_eq!(to.ground.stream().await.len(), before, "nothing was published");
    let imported = json(&to, 0, &["import", &file, "--yes", "--allow-masked"]);
    assert_eq!(imported["published"], from.arrivals.len());
    assert_eq!(last_audit(&to)["arguments"]["allow_masked"], true);

    // Where all is masked, it is known as such, also in a second copy.
    let masked = Projection::start(setup()).await;
    masked.settle().await;
    json(&masked, 0, &["import", &file, "--yes"]);
    let again = json(&masked, 0, &["import", &file, "--yes"]);
    assert_eq!(again["known"], from.arrivals.len());
    fs::remove_dir_all(folder).unwrap();
}

/// A consumer may be lost between any two messages, also where others came with them in one piece.
#[tokio::test]
async fn a_read_that_is_broken_off_between_two_messages_loses_none() {
    let from = filled(74).await;
    let folder = tempfile();
    let file = format!("{folder}/all.ndjson.zst");
    let words = ["export", "--json", "--output", &file];
    let mut export = from.ground.command("projector", &words);
    let lost = "range-message=5*off->1*return->50*off->1*return->90*off->1*return";
    let output = export.env("FAILPOINTS", lost).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let exported: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(exported["messages"], from.arrivals.len());
    fs::remove_dir_all(folder).unwrap();
}

pub(super) fn tempfile() -> String {
    let folder = std::env::temp_dir().join(format!("leadpulse-transfer-{:016x}", rand_u64()));
    fs::create_dir(&folder).unwrap();
    folder.display().to_string()
}

fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
