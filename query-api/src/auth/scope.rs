//! What a key may do.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    #[value(name = "leads:read")]
    Leads,
    #[value(name = "metrics:read")]
    Metrics,
    #[value(name = "users:read")]
    Users,
    /// E-mail addresses.
    #[value(name = "pii:read")]
    Pii,
    #[value(name = "export:read")]
    Export,
    #[value(name = "ops:read")]
    OpsRead,
    #[value(name = "ops:write")]
    OpsWrite,
    /// The operators' commands of the whole instance: of keys without an org, and of no other.
    #[value(skip)]
    Instance,
}

impl Scope {
    /// All that a key of an org can have.
    pub const ALL: [Self; 7] = [
        Self::Leads,
        Self::Metrics,
        Self::Users,
        Self::Pii,
        Self::Export,
        Self::OpsRead,
        Self::OpsWrite,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leads => "leads:read",
            Self::Metrics => "metrics:read",
            Self::Users => "users:read",
            Self::Pii => "pii:read",
            Self::Export => "export:read",
            Self::OpsRead => "ops:read",
            Self::OpsWrite => "ops:write",
            Self::Instance => "ops:instance",
        }
    }
}

/// The scopes of one key.
#[derive(Debug, Clone)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// A name that this version does not know grants nothing.
    pub(super) fn of(names: &[String]) -> Self {
        let known = |scope: &Scope| names.iter().any(|name| name == scope.as_str());
        Self(Scope::ALL.into_iter().filter(known).collect())
    }

    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}
