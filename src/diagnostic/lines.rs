//! The lines of a pipeline file, for reports.

use super::locate::Locations;

/// An index from a path to its line.
#[derive(Debug, Default)]
pub struct LineNumbers {
    locations: Locations,
    /// The byte offset of each line.
    starts: Vec<usize>,
}

impl LineNumbers {
    /// Indexes a text; the index is empty if the text is not YAML.
    pub fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { locations: Locations::try_new(text).unwrap_or_default(), starts }
    }

    /// Returns the line, from 1, of the key at a path, or of its value if it has no key, or of its nearest ancestor.
    pub fn line(&self, path: &[String]) -> Option<u64> {
        let place = self.locations.key(path).or_else(|| self.locations.value(path))?;
        Some(self.starts.partition_point(|start| *start <= place.start) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path;

    #[test]
    fn a_path_leads_to_the_line_of_its_key_or_of_its_element() {
        let lines = LineNumbers::of("a:\n  b:\n    - x: 1\n    - y: 2\nc: 3\n");
        let found = [path!["a"], path!["a", "b"], path!["a", "b", 1], path!["a", "b", 1, "y"], path!["c"], path!["d"]]
            .map(|path| lines.line(&path));
        assert_eq!(found, [Some(1), Some(2), Some(4), Some(4), Some(5), Some(1)]);
        assert_eq!(LineNumbers::of("a: [").line(&path!["a"]), None);
    }
}
