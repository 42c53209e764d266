//! The bare server: axum that reads a body and answers, with the same HTTP library under it.

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};

pub(super) async fn serve(port: u16) {
    let read = async |body: Bytes| if body.is_empty() { "" } else { "{}" };
    let router = Router::new()
        .route("/health", get(async || "up"))
        .route("/webhooks/monday/{source}", post(read));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}
