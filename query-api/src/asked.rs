//! A request as it comes in: whose it is, and what it says.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams},
    http::{HeaderMap, Uri, request::Parts},
};

use crate::{
    auth::{Caller, Scope},
    front::Words,
    params::Params,
    problem::Problem,
    state::App,
};

pub(crate) struct Asked {
    pub(crate) app: Arc<App>,
    pub(crate) headers: HeaderMap,
    /// The words that it was asked in, and its route: for whoever asks the same again.
    pub(crate) words: Option<(Words, MatchedPath)>,
    path: Vec<(String, String)>,
    uri: Uri,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        // A path that is no text names nothing.
        let path =
            RawPathParams::from_request_parts(parts, app).await.map_err(|_| Problem::NotFound)?;
        let words = parts.extensions.get().copied().zip(parts.extensions.get().cloned());
        Ok(Self {
            app: Arc::clone(app),
            headers: parts.headers.clone(),
            words,
            path: path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            uri: parts.uri.clone(),
        })
    }
}

impl Asked {
    /// Whose key it is, if the key has all of these scopes.
    pub(crate) async fn caller(
        &self,
        scopes: impl IntoIterator<Item = Scope> + Send,
    ) -> Result<Caller, Problem> {
        let caller = self.app.keys.bearer(&self.headers).await?;
        for scope in scopes {
            caller.needs(scope)?;
        }
        Ok(caller)
    }

    pub(crate) fn params(&self) -> Params {
        Params::new(self.path.clone(), self.uri.query())
    }
}
