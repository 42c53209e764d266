use tests::harness::{App, PATIENCE, Setup, eventually};

use super::history;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_with_503_forgets_nothing_and_goes_on_when_there_is_room() {
    let app = App::start_with(Setup { redis: false, ..Setup::default() }).await;
    let events = history(5, 40, 91);
    let seq = app.ingest.deliver_all(&events[..20]).await;
    let client = async_nats::connect(app.ground.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream("LEADPULSE_EVENTS").await.unwrap();
    let room = stream.info().await.unwrap().config.clone();
    let full = async_nats::jetstream::stream::Config { max_bytes: 1, ..room.clone() };
    jetstream.update_stream(&full).await.unwrap();
    let refused = app.ingest.post_event(&events[20]).await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, ""));
    assert_eq!(app.ground.stream().await.last().unwrap().seq, seq, "nothing is forgotten");
    jetstream.update_stream(&room).await.unwrap();
    eventually("there is room again", PATIENCE, async || {
        let answer = app.ingest.post_event(&events[20]).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}
