//! Names as they are searched: NFKC, case-folded, Hebrew without niqqud. The function `search_form` of
//! the migrations does the same to what is stored.

use unicode_normalization::UnicodeNormalization;

/// The form in which texts are compared.
pub(crate) fn search_form(text: &str) -> String {
    let plain: String = text.nfkc().filter(|c| !is_niqqud(*c)).collect();
    // Letter by letter and one for each, as Postgres does it: of a whole word Rust makes the last sigma another
    // letter, and of the Turkish capital I with its dot two.
    plain
        .chars()
        .filter_map(|letter| letter.to_lowercase().next())
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Points and accents of Hebrew; the letters stay.
fn is_niqqud(c: char) -> bool {
    matches!(
        c,
        '\u{591}'
            ..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
    )
}

/// A text's search form as a pattern of `like` that stands for itself.
pub(crate) fn pattern(text: &str) -> String {
    search_form(text).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A shorter text has no trigram of its own, and would scan.
const TRIGRAM: usize = 3;

/// Can the text, in its search form, be looked for anywhere in a name? Else only at its beginning.
pub(crate) fn is_part(form: &str) -> bool {
    form.chars().count() >= TRIGRAM
}

/// What finds names with this text in them, or, where it is too short for that, at their beginning.
pub(crate) fn part(text: &str) -> String {
    let anywhere = if is_part(&search_form(text)) { "%" } else { "" };
    format!("{anywhere}{}%", pattern(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_with_and_without_points_width_and_case() {
        assert_eq!(search_form("שָׁלוֹם"), search_form("שלום"));
        assert_eq!(search_form("ＤＡＮＡ Levi "), "dana levi");
        assert_eq!(search_form("ΟΔΟΣ"), "οδοσ");
        assert_eq!(pattern("50%_"), "50\\%\\_");
    }

    #[test]
    fn one_and_two_letters_are_looked_for_at_the_beginning() {
        assert_eq!((part("da"), part("dan")), ("da%".to_owned(), "%dan%".to_owned()));
        assert_eq!(part("דָּנ"), "דנ%", "points are no letters");
    }
}
