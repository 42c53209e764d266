//! A request as it comes in: whose it is, and what it says.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, Uri, request::Parts},
};

use crate::{
    auth::{Caller, Scope},
    params::Params,
    problem::Problem,
    state::App,
};

pub(crate) struct Asked {
    pub(crate) app: Arc<App>,
    pub(crate) headers: HeaderMap,
    path: Vec<(String, String)>,
    uri: Uri,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        // A path that is no text names nothing.
        let path =
            RawPathParams::from_request_parts(parts, app).await.map_err(|_| Problem::NotFound)?;
        Ok(Self {
            app: Arc::clone(app),
            headers: parts.headers.clone(),
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
