//! What every service owes its operator: health, figures, and an orderly end.

use std::time::Duration;

use tests::{
    generate::{Size, seeded_history},
    harness::{
        App, Claims, ORG, PATIENCE, SECRET, SHORT_LIVED_TOKEN, Service, sign_jwt, wait_until,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CREATED: &str = r#"{"type":"create_pulse","boardId":9001,"pulseId":42,"userId":7001,"pulseName":"Dana","subscriptionId":501,"triggerUuid":"0123456789abcdef0123456789abcdef","triggerTime":"2026-03-02T10:00:01.044Z"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_service_tells_its_health_and_its_figures() {
    let app = App::start().await;
    app.ingest.deliver(CREATED).await;
    for service in app.services() {
        for path in ["/health", "/health/liveness", "/health/readiness", "/health/detailed"] {
            let answer = service.page(path).await;
            assert_eq!(answer.status, 200, "{} {path}: {}", service.name(), answer.body);
        }
        // What has not happened yet is not counted: the first figures come with the first work.
        let prefix = format!("# TYPE {}_", service.name().replace('-', "_"));
        let figures = async || {
            let metrics = service.page("/metrics").await;
            assert_eq!(metrics.status, 200);
            metrics.body.contains(&prefix)
        };
        wait_until(&format!("{} has figures", service.name()), PATIENCE, figures).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_misses_a_server_says_so_and_recovers() {
    let mut app = App::start_with(tests::harness::Setup {
        own_postgres: true,
        ..tests::harness::Setup::default()
    })
    .await;
    app.ground.database.server().kill9();
    for service in [&app.projector, &app.query_api] {
        let status = async |path: &str| service.page(path).await.status;
        wait_until(&format!("{} misses Postgres", service.name()), PATIENCE, async || {
            status("/health/readiness").await == 503
        })
        .await;
        assert_eq!(status("/health/liveness").await, 200, "{}", service.name());
        let detailed = service.page("/health/detailed").await.body;
        assert!(detailed.contains("postgres"), "{}: {detailed}", service.name());
    }
    app.ground.database.server().restart().unwrap();
    app.wait_until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dependency_is_shown_with_its_version() {
    let app = App::start().await;
    for (service, dependencies) in [
        (&app.ingest, &["nats"][..]),
        (&app.projector, &["nats", "postgres"]),
        (&app.query_api, &["nats", "postgres", "redis"]),
    ] {
        for name in dependencies {
            wait_until("the version is known", PATIENCE, async || {
                let detailed = service.page("/health/detailed").await.json();
                let version = detailed["dependencies"][name]["version"].as_str().map(str::to_owned);
                version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_down_is_degraded_and_still_ready() {
    let mut app = App::start().await;
    app.ground.redis.as_mut().unwrap().kill9();
    let degraded = async || {
        let answer = app.query_api.page("/health/detailed").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.contains("degraded")
    };
    wait_until("query-api says that Redis is down", PATIENCE, degraded).await;
    assert_eq!(app.query_api.page("/health/readiness").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_asked_to_end_finishes_what_it_has_begun() {
    let mut app = App::start().await;
    let body = format!("{{\"event\":{CREATED}}}");
    let token = sign_jwt(&Claims::default(), SECRET);
    let address = app.ingest.url().trim_start_matches("http://").to_owned();
    // An idle connection must not keep it; a half-sent request is in its hands already.
    let _idle = TcpStream::connect(&address).await.unwrap();
    let mut begun = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /webhooks/monday/demo-crm HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    begun.write_all(&body.as_bytes()[..10]).await.unwrap();
    begun.flush().await.unwrap();
    // The request is begun when ingest counts it.
    wait_until("ingest reads the request", PATIENCE, async || {
        let metrics = app.ingest.page("/metrics").await.body;
        metrics
            .lines()
            .any(|line| line.starts_with("ingest_webhooks_in_flight") && line.ends_with(" 1"))
    })
    .await;

    let pid = app.ingest.pid();
    signal_term(pid);
    let rest = async {
        begun.write_all(&body.as_bytes()[10..]).await.unwrap();
        let mut answer = String::new();
        begun.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(PATIENCE, rest).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("leadpulse-seq: 1"), "{answer}");
    wait_for_good_end(&mut app.ingest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_ends_by_itself_with_exit_code_0() {
    let mut app = App::start().await;
    let now = chrono::Utc::now().timestamp_micros();
    let events = seeded_history(&app.ground.rules, &Size { items: 5, events: 30..31 }, now, 3);
    app.ingest.deliver_all(&events).await;
    for service in [&mut app.ingest, &mut app.projector, &mut app.query_api] {
        signal_term(service.pid());
        wait_for_good_end(service).await;
    }
}

fn signal_term(pid: u32) {
    let sent = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

async fn wait_for_good_end(service: &mut Service) {
    let ended = service.ended(Duration::from_secs(15)).await;
    let name = service.name();
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{name} within 15 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_webhook_to_the_row() {
    let app = App::start().await;
    let token = sign_jwt(&Claims::default(), SECRET);
    let headers = [
        ("authorization", token.as_str()),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let body = format!("{{\"event\":{CREATED}}}");
    let answer = app.ingest.post("/webhooks/monday/demo-crm", &headers, &body).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(app.get_at("/v1/leads/9001/42", 1).await.status, 200);
    let trace: String =
        sqlx::query_scalar("select trace_id::text from lead_fact where org_id = $1")
            .bind(ORG)
            .fetch_one(&app.ground.database.pool)
            .await
            .unwrap();
    assert_eq!(trace, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_logs_a_secret() {
    let app = App::start().await;
    let seq = app.ingest.deliver(CREATED).await.seq;
    app.get_at("/v1/leads", seq).await;
    let wrong = "lp_0000000000000000000000000000000000000000000";
    let key = format!("Bearer {wrong}");
    assert_eq!(
        app.query_api.get("/v1/leads", &[("authorization", &key)]).await.unwrap().status,
        401
    );
    let logs = app.logs();
    let password = app.ground.database.url().split(['@', ':']).nth(2).unwrap().to_owned();
    assert!(password.len() > 8);
    for secret in [SECRET, SHORT_LIVED_TOKEN, &app.api_key, wrong, &password] {
        assert!(!logs.contains(secret), "{secret} was logged");
    }
}
