//! `/ops/instance`: what the command line does, over HTTP, with a key of no org.

use serde_json::{Value, json};
use tests::{
    document::Document,
    harness::{Answer, PATIENCE, Projection, Service, eventually},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{history, json, last_audit, setup};

struct Console {
    projection: Projection,
    api: Service,
    key: String,
    document: Document,
}

impl Console {
    async fn start(seed: u64) -> Self {
        let mut projection = Projection::start(setup()).await;
        projection.publish(&history(20, 300, seed)).await;
        projection.check().await;
        Self::over(projection).await
    }

    async fn over(projection: Projection) -> Self {
        let api = projection.ground.start("query-api").unwrap();
        api.wait_until_ready().await;
        let key = projection.ground.create_instance_key();
        let document = Document::of(&api).await;
        Self { projection, api, key, document }
    }

    async fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.key);
        let path = format!("/ops/instance/{path}");
        let answer = self.api.get(&path, &[("authorization", &bearer)]).await.unwrap();
        self.document.check("GET", &path, &answer);
        answer
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.key);
        let path = format!("/ops/instance/{path}");
        let answer = self.api.post(&path, &[("authorization", &bearer)], body).await.unwrap();
        self.document.check("POST", &path, &answer);
        answer
    }

    /// The bytes of a file.
    async fn fetch(&self, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("{}/ops/instance/{path}", self.api.url()));
        let request =
            headers.iter().fold(request.bearer_auth(&self.key), |request, (name, value)| {
                request.header(*name, *value)
            });
        // The export before gives its turn back when its last piece is taken.
        eventually(&format!("{path} is given"), PATIENCE, async || {
            let answer = request.try_clone()?.send().await.ok()?;
            let answer = (answer.status() == 200).then_some(answer)?;
            answer.bytes().await.ok().map(|file| file.to_vec())
        })
        .await
    }

    async fn does(&self, path: &str) -> Value {
        let answer = self.post(path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Begins it, and polls its resource to its end.
    async fn ends(&self, path: &str, body: &str) -> Value {
        let begun = self.post(path, body).await;
        assert_eq!(begun.status, 202, "{path}: {begun:?}");
        let place = begun.header("location").unwrap().replace("/ops/instance/", "");
        eventually(&format!("{path} ends"), PATIENCE, async || {
            let entry = self.get(&place).await.json();
            entry["ended_at"].is_string().then_some(entry)
        })
        .await
    }

    async fn succeeds(&self, path: &str, body: &str) -> Value {
        let entry = self.ends(path, body).await;
        assert_eq!(entry["succeeded"], true, "{path}: {entry}");
        assert!(entry["who"].as_str().unwrap().starts_with("instance key "));
        entry["result"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projection_is_paused_moved_and_resumed() {
    let console = Console::start(91).await;
    let last = console.projection.last_seq();
    let status = console.get("status").await.json();
    assert_eq!(status["findings"], json!([]), "{status}");
    assert_eq!(console.get("checkpoint").await.json()["applied_seq"], last);

    assert_eq!(console.post("pause?reason=test", "").await.status, 400, "nobody has confirmed it");
    assert_eq!(console.post("pause?confirm=true", "").await.status, 400, "a reason is needed");
    let set = format!("checkpoint/set?to_seq=0&expect={last}&reason=again");
    assert_eq!(console.post(&set, "").await.status, 409, "an owner is alive");
    let paused = console.does("pause?confirm=true&reason=test").await;
    assert_eq!(paused["reason"], "test");
    let elsewhere = console.post("checkpoint/set?to_seq=0&expect=1&reason=again", "").await;
    assert_eq!(elsewhere.status, 409, "{elsewhere:?}");
    let beyond = format!("checkpoint/set?to_seq={}&expect={last}&reason=again", last + 1);
    assert_eq!(console.post(&beyond, "").await.status, 409, "there is no such event");
    assert_eq!(console.post("checkpoint/set?to_seq=0&reason=x", "").await.status, 400);
    let moved = console.does(&set).await;
    assert_eq!((&moved["again"], &moved["skipped"]), (&json!(last), &json!(0)));
    let audit = last_audit(&console.projection);
    assert_eq!((&audit["command"], &audit["reason"]), (&json!("checkpoint set"), &json!("again")));
    assert_eq!(console.get("audit?limit=1").await.json()["items"][0]["id"], audit["id"]);
    assert_eq!(console.does("resume?reason=done").await["lifted"]["reason"], "test");
    assert_eq!(last_audit(&console.projection)["reason"], "done");
    assert_eq!(console.does("resume").await["lifted"], Value::Null);
    console.projection.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_no_org_are_seen_read_again_and_given_up() {
    let console = Console::start(97).await;
    let jetstream = console.projection.jetstream().await;
    let publish = jetstream.publish("leadpulse.events.demo.9001.other", "no json".into());
    let seq = publish.await.unwrap().await.unwrap().sequence;
    let items = eventually("it is parked", PATIENCE, async || {
        let list = console.get("dead-letters").await.json();
        list["items"].as_array().filter(|items| !items.is_empty()).cloned()
    })
    .await;
    assert_eq!((&items[0]["org_id"], &items[0]["letters"]), (&Value::Null, &json!(1)));
    assert_eq!(console.get("dead-letters?org=demo").await.json()["items"], json!([]));
    let letter = console.get(&format!("dead-letters/{seq}")).await.json();
    assert_eq!((&letter["payload"], &letter["earlier_stream"]), (&json!("no json"), &json!(false)));
    assert_eq!(console.get("dead-letters/999999").await.status, 404);

    let which = format!("?seq={seq}");
    let counted = console.does(&format!("dead-letters/retry{which}&dry_run=true")).await;
    assert_eq!(counted["letters"], 1);
    assert_eq!(console.post(&format!("dead-letters/retry{which}"), "").await.status, 400);
    let retried = console.does(&format!("dead-letters/retry{which}&confirm=true")).await;
    assert_eq!((&retried["applied"], &retried["refused"]), (&json!(0), &json!(1)));
    let all = console.post("dead-letters/skip?confirm=true&reason=rubbish", "").await;
    assert_eq!(all.status, 400, "which ones? {all:?}");
    let words = format!("dead-letters/skip{which}&confirm=true&reason=rubbish");
    assert_eq!(console.does(&words).await["letters"], 1);
    let audit = last_audit(&console.projection);
    assert_eq!(
        (&audit["command"], &audit["reason"]),
        (&json!("dead-letters skip"), &json!("rubbish"))
    );
    assert_eq!(console.get("dead-letters").await.json()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_finds_a_replay_mends_and_its_dry_run_foretells() {
    let console = Console::start(92).await;
    let verdict = console.succeeds("verify", "").await;
    assert_eq!(verdict["equal"], true, "{verdict}");
    sqlx::query("update lead_fact set name = 'wrong'")
        .execute(&console.projection.ground.database.pool)
        .await
        .unwrap();
    assert_eq!(console.succeeds("verify?org=demo", "").await["equal"], false);
    assert_eq!(console.post("replay", "").await.status, 400, "nobody has confirmed it");
    assert_eq!(console.post("replay?since=yesterday&confirm=true", "").await.status, 400);
    let foretold = console.succeeds("replay?dry_run=true&from_seq=1", "").await;
    let done = console.succeeds("replay?confirm=true&reason=mend&from_seq=1", "").await;
    assert!(!done["lead_changes"].as_array().unwrap().is_empty());
    assert_eq!(foretold["lead_changes"], done["lead_changes"]);
    console.projection.check().await;
    assert_eq!(console.succeeds("verify", "").await["equal"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_rebuilt_swapped_and_put_back() {
    let console = Console::start(93).await;
    assert_eq!(console.get("rebuild").await.json(), json!({ "rebuild": null }));
    let plan = console.get("rebuild/plan").await.json();
    assert_eq!(plan["events"], console.projection.last_seq(), "{plan}");
    let leads = console.projection.leads().await.len();
    assert_eq!(plan["leads"], leads, "a table that was never analysed is counted");
    let reason = "confirm=true&reason=test";
    assert_eq!(console.post("rebuild/start?reason=test", "").await.status, 400);
    let swap = console.ends(&format!("rebuild/swap?{reason}"), "").await;
    assert_eq!(swap["succeeded"], false, "there is nothing to swap in: {swap}");
    let built = console.succeeds(&format!("rebuild/start?{reason}"), "").await;
    assert_eq!(built["phase"], "ready to swap");
    let aborted = console.does(&format!("rebuild/abort?{reason}")).await;
    assert_eq!(aborted["over"], true, "{aborted}");
    let swapped = console.succeeds(&format!("rebuild/start?swap=true&{reason}"), "").await;
    assert!(swapped["lock_ms"].is_number(), "{swapped}");
    console.projection.check().await;
    console.succeeds(&format!("rebuild/rollback?{reason}"), "").await;
    console.projection.check().await;
    assert_eq!(console.does(&format!("rebuild/drop-archive?{reason}")).await["dropped"], true);
    assert_eq!(console.get("rebuild").await.json()["rebuild"]["over"], true);
    assert_eq!(last_audit(&console.projection)["command"], "rebuild drop-archive");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_carried_elsewhere() {
    let from = Console::start(94).await;
    let mut to = Console::start(95).await;
    let file = from.get("export").await;
    assert_eq!(file.header("content-type"), Some("application/x-ndjson"));
    let lines = u64::try_from(file.body.lines().count()).unwrap();
    assert_eq!(lines, from.projection.last_seq() + 2, "head, messages, end");
    assert_eq!(last_audit(&from.projection)["command"], "export");
    let part = from.get("export?from_seq=3&to_seq=7").await;
    assert_eq!(part.body.lines().count(), 7);
    let packed = from.fetch("export?compression=zstd", &[]).await;
    let unpacked = zstd::decode_all(packed.as_slice()).unwrap();
    let messages = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(messages(str::from_utf8(&unpacked).unwrap()), messages(&file.body));

    assert_eq!(to.post("import?reason=move", &file.body).await.status, 400, "not confirmed");
    let import = "import?confirm=true&reason=move";
    let broken = &file.body[..file.body.len() / 2];
    let refused = to.post(import, broken).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let imported = to.succeeds(import, &file.body).await;
    assert_eq!(imported["messages"], from.projection.last_seq());
    assert_eq!(to.succeeds(import, &file.body).await["published"], 0);
    let first = to.projection.last_seq();
    let arrivals = from.projection.arrivals.iter().cloned();
    to.projection.arrivals.extend(
        arrivals.map(|arrival| tests::naive::Arrival { seq: arrival.seq + first, ..arrival }),
    );
    to.projection.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_export_has_no_names_and_the_same_pseudonyms_under_the_same_key() {
    let console = Console::start(97).await;
    let key = [("leadpulse-mask-key", "a key for masking that is long")];
    let unmasked = console.fetch("export", &[]).await;
    let masked = console.fetch("export?mask=true", &key).await;
    let masked_again = console.fetch("export?mask=true", &key).await;
    let forgotten = console.fetch("export?mask=true", &[]).await;
    let text = |file: &[u8]| String::from_utf8(file.to_vec()).unwrap();
    let messages = |file: &[u8]| text(file).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(messages(&masked), messages(&masked_again));
    assert_ne!(messages(&masked), messages(&forgotten));
    let leads = console.projection.leads().await;
    let names = leads.values().filter_map(|lead| serde_json::to_string(lead.name.as_ref()?).ok());
    let names: Vec<_> =
        names.filter(|name| name.len() > 8 && text(&unmasked).contains(name)).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(!text(&masked).contains(&name) && !text(&forgotten).contains(&name), "{name}");
    }
    assert_eq!(last_audit(&console.projection)["arguments"]["masked"], true);
    // Back into where the names are it goes only if that is meant.
    let import = "import?confirm=true&reason=test";
    let refused = console.ends(import, &text(&masked)).await;
    assert_eq!(refused["succeeded"], false, "{refused}");
    assert!(refused["result"].as_str().unwrap().contains("allow_masked=true"), "{refused}");
    let meant = format!("{import}&allow_masked=true");
    assert_eq!(console.succeeds(&meant, &text(&masked)).await["published"], 0);
    let bearer = format!("Bearer {}", console.key);
    for (path, key) in [("export", key[0].1), ("export?mask=true", "short")] {
        let headers = [("authorization", bearer.as_str()), ("leadpulse-mask-key", key)];
        let refused = console.api.get(&format!("/ops/instance/{path}"), &headers).await.unwrap();
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
        assert!(!refused.body.contains("a key for masking"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_tells_how_far_it_is() {
    let console = Console::start(98).await;
    let mut lock = console.projection.ground.database.pool.begin().await.unwrap();
    // A replay writes when it has folded: it waits for the lanes.
    sqlx::query("select from checkpoint for update").execute(&mut *lock).await.unwrap();
    let begun = console.post("replay?confirm=true&from_seq=1", "").await;
    let place = begun.header("location").unwrap().replace("/ops/instance/", "");
    let progress = eventually("it tells how far it is", PATIENCE, async || {
        let entry = console.get(&place).await.json();
        assert!(entry["ended_at"].is_null(), "{entry}");
        entry["progress"].is_object().then(|| entry["progress"].clone())
    })
    .await;
    assert!(progress["total"].as_u64() >= progress["done"].as_u64(), "{progress}");
    lock.rollback().await.unwrap();
    let ended = eventually("it ends", PATIENCE, async || {
        let entry = console.get(&place).await.json();
        entry["ended_at"].is_string().then_some(entry)
    })
    .await;
    assert!(ended["progress"].is_null() && ended["succeeded"] == true, "{ended}");
}

/// More than the sockets between the two can hold, and a client that reads none of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_client_takes_nothing_gives_its_turn_back() {
    let silence = ("LEADPULSE_QUERY_API_TRANSFER_SILENCE_MS".to_owned(), "1500".to_owned());
    let mut setup = setup();
    setup.environment.push(silence);
    let mut projection = Projection::start(setup).await;
    projection.settle().await;
    projection.projector.kill9();
    let jetstream = projection.jetstream().await;
    for _ in 0..300 {
        let subject = "leadpulse.events.demo.9001.other";
        jetstream.publish(subject, "x".repeat(100_000).into()).await.unwrap().await.unwrap();
    }
    let console = Console::over(projection).await;
    let mut client = TcpStream::connect(console.api.url().replace("http://", "")).await.unwrap();
    let request = format!(
        "GET /ops/instance/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        console.key
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    assert_eq!(console.post("verify", "").await.status, 409, "the export has the turn");
    eventually("the turn is free again", PATIENCE, async || {
        (console.post("verify", "").await.status == 202).then_some(())
    })
    .await;
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.ok();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the answer breaks off, so that its client knows");
    assert!(console.api.log_text().contains("its client takes nothing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_an_org_commands_nothing_of_the_instance_and_long_work_is_one_at_a_time() {
    let console = Console::start(96).await;
    let own = console.projection.ground.create_key("demo", &[]);
    let bearer = format!("Bearer {own}");
    let document = console.api.page("/openapi.json").await.json();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/ops/instance") {
            continue;
        }
        walked += 1;
        let path = format!("{}?confirm=true&reason=x", path.replace("{id}", "1"));
        let headers = [("authorization", bearer.as_str())];
        let refused = match item.get("post") {
            Some(_) => console.api.post(&path, &headers, "").await.unwrap(),
            None => console.api.get(&path, &headers).await.unwrap(),
        };
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
    }
    assert_eq!(walked, 22);
    assert_eq!(json(&console.projection, 0, &["audit"]), json!([]), "nothing was done");

    // What waits for a lock keeps its turn; what else takes long is refused, what is short is not.
    let mut lock = console.projection.ground.database.pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let held = console.post("verify", "").await;
    assert_eq!(held.status, 202, "{held:?}");
    assert_eq!(console.post("verify", "").await.status, 409, "one at a time");
    assert_eq!(console.get("export").await.status, 409, "one at a time");
    assert_eq!(console.get("checkpoint").await.status, 200);
    lock.rollback().await.unwrap();
    eventually("its turn is over", PATIENCE, async || {
        (console.get("export").await.status == 200).then_some(())
    })
    .await;
}
