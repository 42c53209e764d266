//! From the text of a URL to values, or to a list of all that is wrong with it.

use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use crate::{
    problem::{Fault, Problem},
    text::search_form,
};

/// The parameters of one request, from its path and its query. Each is taken by its name; what nobody
/// takes is unknown, and that is an error: a misspelt filter must not widen an answer.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    taken: BTreeSet<&'static str>,
    faults: Vec<Fault>,
}

impl Params {
    pub(crate) fn new(path: Vec<(String, String)>, query: Option<&str>) -> Self {
        let mut pairs = path;
        let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.extend(query.map(|(name, value)| (name.into_owned(), value.into_owned())));
        let mut params = Self { pairs, ..Self::default() };
        let hostile: Vec<String> = params
            .pairs
            .iter()
            .filter(|(name, value)| (name.clone() + value).contains('\0'))
            .map(|pair| pair.0.clone())
            .collect();
        for name in hostile {
            params.fault(&name, "has a zero byte");
        }
        params
    }

    /// A spelling that equal questions share, whatever the order of their parameters.
    pub(crate) fn canonical(&self, without: &[&str]) -> String {
        let mut pairs: Vec<_> =
            self.pairs.iter().filter(|(name, _)| !without.contains(&name.as_str())).collect();
        pairs.sort();
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(pairs);
        text.finish()
    }

    pub(crate) fn many<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.taken.insert(name);
        let (mut values, mut faults) = (Vec::new(), Vec::new());
        for (_, text) in self.pairs.iter().filter(|pair| pair.0 == name) {
            match read(text) {
                Ok(value) => values.push(value),
                Err(detail) => faults.push(detail),
            }
        }
        if values.len() > 200 {
            faults.push("is given more than 200 times".into());
        }
        for detail in faults {
            self.fault(name, detail);
        }
        values
    }

    pub(crate) fn one<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let mut values = self.many(name, read);
        if values.len() > 1 {
            self.fault(name, "is given twice");
        }
        values.pop()
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        self.one(name, |text| word(text, words)).unwrap_or(default)
    }

    pub(crate) fn choices<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Vec<T> {
        self.many(name, |text| word(text, words))
    }

    /// A whole number within bounds.
    pub(crate) fn number<T>(&mut self, name: &'static str, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.one(name, |text| match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => Err(format!("must be a whole number from {least} to {most}")),
        })
    }

    pub(crate) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Fault { parameter: name.to_owned(), detail: detail.into() });
    }

    /// The end of reading: nothing may be wrong, and nothing may be left.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        let known = |name: &str| self.taken.contains(name);
        let unknown: BTreeSet<String> =
            self.pairs.iter().map(|pair| pair.0.clone()).filter(|name| !known(name)).collect();
        for name in unknown {
            self.fault(&name, "is unknown here");
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::Invalid(self.faults)) }
    }
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of: {}", known.join(", "))
    })
}

/// An id: a 64-bit integer.
pub(crate) fn id(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "must be an id, a whole number".to_owned())
}

/// Characters of a text that is looked for.
const TEXT: usize = 100;

/// A text that is not empty.
pub(crate) fn text(text: &str) -> Result<String, String> {
    if text.chars().count() > TEXT {
        return Err(format!("is longer than {TEXT} characters"));
    }
    match text.trim() {
        "" => Err("is empty".into()),
        text => Ok(text.to_owned()),
    }
}

/// A part of a name. One that has nothing to be searched by, such as points alone, would find every name.
pub(crate) fn name(given: &str) -> Result<String, String> {
    let name = text(given)?;
    if search_form(&name).is_empty() { Err("has no letter".into()) } else { Ok(name) }
}

/// A cursor, which its list looks into.
pub(crate) fn cursor(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty".into()),
        1..=200 => Ok(text.to_owned()),
        _ => Err("is no cursor".into()),
    }
}

/// An exact decimal.
pub(crate) fn money(text: &str) -> Result<rust_decimal::Decimal, String> {
    rust_decimal::Decimal::from_str_exact(text)
        .map_err(|_| "must be a decimal number such as 12500.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once_and_unknown_parameters_are_faults() {
        let mut params =
            Params::new(vec![("item_id".into(), "x".into())], Some("limit=999&limt=3&order=up"));
        assert_eq!(params.one("item_id", id), None);
        assert_eq!(params.number("limit", 1, 200), None);
        assert_eq!(params.choice("order", &[("asc", 1), ("desc", 2)], 2), 2);
        let Err(Problem::Invalid(faults)) = params.finish() else { panic!("accepted") };
        let names: Vec<_> = faults.iter().map(|fault| fault.parameter.as_str()).collect();
        assert_eq!(names, ["item_id", "limit", "order", "limt"]);
    }

    #[test]
    fn equal_questions_have_one_spelling() {
        let canonical = |query| Params::new(Vec::new(), Some(query)).canonical(&["min_seq"]);
        assert_eq!(canonical("b=%31&a=x+y&min_seq=7"), canonical("a=x%20y&b=1"));
        assert_ne!(canonical("a=1&b=2"), canonical("a=1%26b%3D2"));
    }
}
