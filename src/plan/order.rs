//! The order in which tables are loaded: referenced tables first.

/// Sorts `0..count` so that each item follows the items that it `needs`, and otherwise keeps its position. Cycles keep
/// their order; a rule of the pipeline file excludes them.
pub fn order(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut done: Vec<usize> = Vec::with_capacity(count);
    while done.len() < count {
        let left = || (0..count).filter(|item| !done.contains(item));
        let ready = left().find(|item| needs(*item).iter().all(|need| need == item || done.contains(need)));
        let Some(next) = ready.or_else(|| left().next()) else { break };
        done.push(next);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn parents_come_first_and_self_references_do_not_matter() {
        let needs = |table: usize| [vec![1, 2], vec![2], vec![2], vec![]][table].clone();
        assert_eq!(order(4, needs), [2, 1, 0, 3]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(order(2, |table| vec![1 - table]), [0, 1]);
    }
}
