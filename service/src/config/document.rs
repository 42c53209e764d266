//! A TOML document that is read key by key, where every problem is kept with its place instead of
//! ending the reading: who mends a configuration wants to see all that is wrong with it at once.

use std::{
    cell::RefCell,
    fmt::{self, Display},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing that is wrong, and where: `leadpulse.toml:12:5` or the name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: String,
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The value of an environment variable, by its name. Tests pass one of their own.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub(super) struct Document<'e> {
    file: String,
    text: &'e str,
    environment: Environment<'e>,
    problems: RefCell<Vec<Problem>>,
}

impl<'e> Document<'e> {
    pub(super) fn new(file: &str, text: &'e str, environment: Environment<'e>) -> Self {
        Self { file: file.to_owned(), text, environment, problems: RefCell::default() }
    }

    /// The root table; what TOML itself finds wrong is reported and read around.
    pub(super) fn parse(&self) -> Spanned<DeTable<'e>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.report(error.span().unwrap_or(0..0), error.message().to_owned());
        }
        table
    }

    pub(super) fn report(&self, span: Range<usize>, message: impl Into<String>) {
        self.report_at(self.place(span), message);
    }

    fn report_at(&self, place: String, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, message: message.into() });
    }

    fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.file)
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A value found in the file or in the environment, with the place to blame.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: String,
}

/// A table while it is read. It remembers the keys that were asked for; `finish` reports the others.
pub(super) struct Section<'d, 'e> {
    document: &'d Document<'e>,
    table: Option<&'d DeTable<'e>>,
    span: Range<usize>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d, 'e> Section<'d, 'e> {
    pub(super) fn root(document: &'d Document<'e>, table: &'d Spanned<DeTable<'e>>) -> Self {
        Self {
            document,
            table: Some(table.get_ref()),
            span: table.span(),
            path: String::new(),
            asked: RefCell::default(),
        }
    }

    /// A table below this one. A missing one reads as empty, so that defaults and the environment apply.
    pub(super) fn section(&self, key: &'static str) -> Section<'d, 'e> {
        let mut section = Section {
            document: self.document,
            table: None,
            span: self.span.clone(),
            path: self.path_of(key),
            asked: RefCell::default(),
        };
        if let Some(value) = self.raw(key) {
            section.span = value.span();
            section.table = value.get_ref().as_table();
            if section.table.is_none() {
                self.wrong_type(value, key, "a table");
            }
        }
        section
    }

    /// The tables of an array such as `[[orgs]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'d, 'e>> {
        let mut sections = Vec::new();
        for (index, value) in self.array(key).into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match value.get_ref().as_table() {
                Some(table) => sections.push(Section {
                    document: self.document,
                    table: Some(table),
                    span: value.span(),
                    path,
                    asked: RefCell::default(),
                }),
                None => self.document.report(value.span(), format!("`{path}` must be a table")),
            }
        }
        sections
    }

    /// The elements of an array; none if the key is missing.
    pub(super) fn array(&self, key: &'static str) -> Vec<&'d Spanned<DeValue<'e>>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "an array");
            return Vec::new();
        };
        array.iter().collect()
    }

    /// A scalar of the file.
    pub(super) fn get<T: Scalar>(&self, key: &'static str) -> Option<Found<T>> {
        let value = self.raw(key)?;
        let Some(scalar) = T::from_toml(value.get_ref()) else {
            self.wrong_type(value, key, T::WHAT);
            return None;
        };
        Some(Found { value: scalar, place: self.document.place(value.span()) })
    }

    /// A scalar that the environment overrides: by `LEADPULSE_<SECTION>_<KEY>`, then by `alias`.
    pub(super) fn get_or_env<T: Scalar>(
        &self,
        key: &'static str,
        alias: Option<&str>,
    ) -> Option<Found<T>> {
        let from_file = self.get(key);
        let own = format!("LEADPULSE_{}", self.path_of(key).replace('.', "_").to_uppercase());
        for name in [Some(own.as_str()), alias].into_iter().flatten() {
            let Some(text) = (self.document.environment)(name) else { continue };
            let place = format!("environment variable {name}");
            match T::from_text(text.trim()) {
                Some(value) => return Some(Found { value, place }),
                None => self.document.report_at(place, format!("must be {}", T::WHAT)),
            }
        }
        from_file
    }

    /// A text that must be there and pass `parse`.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.raw(key).is_none() {
            self.report(format!("`{}` is missing", self.path_of(key)));
            return None;
        }
        self.parsed(key, self.get::<String>(key)?, parse)
    }

    /// Checks a found value; what is wrong is reported at its place.
    pub(super) fn parsed<S: AsRef<str>, T>(
        &self,
        key: &'static str,
        found: Found<S>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(found.value.as_ref())
            .map_err(|message| {
                self.document.report_at(found.place, format!("`{}` {message}", self.path_of(key)));
            })
            .ok()
    }

    /// A whole number within bounds, or its default.
    pub(super) fn number(
        &self,
        key: &'static str,
        alias: Option<&str>,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let Some(found) = self.get_or_env::<i64>(key, alias) else { return default };
        match u64::try_from(found.value) {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                let (low, high) = (bounds.start(), bounds.end());
                let path = self.path_of(key);
                self.document.report_at(
                    found.place,
                    format!("`{path}` is {}; it must lie between {low} and {high}", found.value),
                );
                default
            }
        }
    }

    /// Reports a problem of this table as a whole.
    pub(super) fn report(&self, message: impl Into<String>) {
        self.document.report(self.span.clone(), message);
    }

    pub(super) fn report_value(&self, value: &Spanned<DeValue<'_>>, message: impl Into<String>) {
        self.document.report(value.span(), message);
    }

    /// Reports the keys that nobody asked for: a misspelt setting must not be silently a default.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            let name: &str = key.get_ref();
            if !asked.contains(&name) {
                let known = asked.join(", ");
                let path = &self.path;
                let of = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                self.document
                    .report(key.span(), format!("unknown key `{name}`{of}; known are: {known}"));
            }
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn raw(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'e>>> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    fn wrong_type(&self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        let path = self.path_of(key);
        self.document.report(value.span(), format!("`{path}` must be {wanted}, not {found}"));
    }
}

/// What a setting can be, from the file and from the environment.
pub(super) trait Scalar: Sized {
    const WHAT: &'static str;
    fn from_toml(value: &DeValue<'_>) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

impl Scalar for String {
    const WHAT: &'static str = "a text";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Scalar for bool {
    const WHAT: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
    fn from_text(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
}

impl Scalar for i64 {
    const WHAT: &'static str = "a whole number";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}
