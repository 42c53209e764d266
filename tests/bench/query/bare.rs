//! The bare server: axum that answers with the same bytes, whatever it is asked.

use std::path::Path;

use axum::{Router, body::Bytes, http::header};

pub(super) async fn serve(port: u16, body: &Path) {
    let body = Bytes::from(std::fs::read(body).unwrap());
    let answer =
        move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], body.clone()));
    let router = Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}
