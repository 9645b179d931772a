//! Operators of a loader in production's search path. Production's constraints and defaults use polymorphic operators of the system; an operator
//! for the exact types would be found first if their text was parsed with that path.

use std::panic::catch_unwind;

use super::world::World;
use crate::production::Holder;

/// Something of production that is evaluated before the insertion.
struct Form {
    name: &'static str,
    /// SQL of the owner, before the operators are there.
    production: &'static str,
    /// SQL of the owner that uses the operators, once they are there.
    opened: &'static str,
    /// The key of the table; empty if production's default fills it.
    key: &'static str,
    value: &'static str,
}

const SAME: &str = "ALTER TABLE form ADD CHECK (v = v)";
const SERIAL: &str = "    key: { column: id }\n";

const fn of_array(name: &'static str, production: &'static str) -> Form {
    Form { name, production, opened: SAME, key: SERIAL, value: "{a}" }
}

const FORMS: [Form; 8] = [
    Form {
        value: "{1.25}",
        ..of_array("a limit of elements", "CREATE TABLE form (id serial PRIMARY KEY, ref text, v numeric(5,2)[])")
    },
    of_array("a CHECK", "CREATE TABLE form (id serial PRIMARY KEY, ref text, v text[] CHECK (v <> '{}'))"),
    Form {
        key: "",
        value: "a",
        opened: "ALTER TABLE form ALTER id SET DEFAULT ('D' || nextval('s'))",
        ..of_array(
            "a default of a key",
            "CREATE SEQUENCE s; CREATE TABLE form (id text PRIMARY KEY DEFAULT ('D' || nextval('s')), ref text, v text)",
        )
    },
    of_array(
        "an index expression",
        "CREATE TABLE form (id serial PRIMARY KEY, ref text, v text[]); CREATE UNIQUE INDEX ON form ((v || 'x'::text)) WHERE v <> '{}'",
    ),
    of_array(
        "an exclusion constraint",
        "CREATE TABLE form (id serial PRIMARY KEY, ref text, v text[], EXCLUDE USING btree (v WITH =) WHERE (v <> '{}'));
         INSERT INTO form (v) VALUES ('{b}')",
    ),
    of_array(
        "a partition",
        "CREATE TABLE form (id serial, ref text, v text[], PRIMARY KEY (id, v)) PARTITION BY LIST (v);
         CREATE TABLE form_a PARTITION OF form FOR VALUES IN ('{a}')",
    ),
    of_array(
        "a generated column",
        "CREATE TABLE form (id serial PRIMARY KEY, ref text, v text[], w text[] GENERATED ALWAYS AS (v || 'x'::text) STORED)",
    ),
    Form {
        key: "    relationships: [{ column: id, from: [ref], to: account, by: account_no }]\n",
        ..of_array(
            "a foreign key",
            "CREATE TABLE parent (id integer, v text[], PRIMARY KEY (id, v)); INSERT INTO parent VALUES (1, '{a}');
         CREATE TABLE form (id integer PRIMARY KEY, ref text, v text[], FOREIGN KEY (id, v) REFERENCES parent)",
        )
    },
];

/// Operators for the exact types of [`FORMS`]. A read-only transaction keeps a file that a superuser writes.
const OPERATORS: &str = "
    CREATE FUNCTION night.write() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        BEGIN
            PERFORM pg_catalog.set_config('role', 'none', true);
            EXECUTE pg_catalog.format('COPY (SELECT 1) TO %L',
                pg_catalog.current_setting('data_directory') || '/climbed_' || pg_catalog.current_database());
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        RETURN true;
    END $$;
    CREATE FUNCTION public.same(numeric[], numeric[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM night.write(); RETURN pg_catalog.array_eq($1, $2); END $$;
    CREATE FUNCTION public.same(text[], text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM night.write(); RETURN pg_catalog.array_eq($1, $2); END $$;
    CREATE FUNCTION public.differ(text[], text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM night.write(); RETURN pg_catalog.array_ne($1, $2); END $$;
    CREATE FUNCTION public.append(text[], text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM night.write(); RETURN pg_catalog.array_append($1, $2); END $$;
    CREATE FUNCTION public.join(text, bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM night.write(); RETURN 'wrong' || $2::text; END $$;
    CREATE OPERATOR public.= (LEFTARG = numeric[], RIGHTARG = numeric[], FUNCTION = public.same);
    CREATE OPERATOR public.= (LEFTARG = text[], RIGHTARG = text[], FUNCTION = public.same);
    CREATE OPERATOR public.<> (LEFTARG = text[], RIGHTARG = text[], FUNCTION = public.differ);
    CREATE OPERATOR public.|| (LEFTARG = text[], RIGHTARG = text, FUNCTION = public.append);
    CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = public.join);
    GRANT EXECUTE ON FUNCTION night.write() TO PUBLIC";

/// Loads one row into a form as a superuser, with its defense and without.
fn assert_defended(Form { name, production, opened, key, value }: &Form) {
    let world = World::shared();
    world.assert_both_ways(name, |database, superuser, is_open| {
        superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC");
        let owner = Holder::new(&world.url_in(database, "owner"));
        owner.execute(production);
        Holder::new(&world.url_in(database, "night")).execute(OPERATORS);
        if is_open {
            owner.execute(opened);
        }
        world.place.write("form.csv", format!("ref,v\nOLD-1,{value}\n"));
        world.place.write(
            "form.yaml",
            format!(
                "version: 1\nname: form\ntarget: {{ url: '${{DATABASE_URL}}' }}\nsafeguards: {{ conversion_mode: off }}
tables:\n  form:\n    source: {{ path: form.csv }}\n    legacy_key: [ref]\n{key}"
            ),
        );
        world.pipeline(database, "owner", &["setup", "form.yaml"]).passes();
        for command in [&["validate", "form.yaml"][..], &["run", "form.yaml", "--mock"], &["run", "form.yaml"]] {
            let ran = world.pipeline(database, "postgres", command);
            if !is_open {
                ran.passes();
            }
        }
        if !is_open && key.is_empty() {
            assert_eq!(superuser.text("SELECT id ~ '^D[0-9]+$' FROM form"), "t");
        }
        superuser.text("SELECT (pg_stat_file('climbed_' || current_database(), true)).size IS NOT NULL") == "t"
    });
}

#[test]
fn a_superuser_that_loads_finds_no_operator_of_a_loader() {
    let wrong = FORMS.iter().filter(|form| catch_unwind(|| assert_defended(form)).is_err());
    assert_eq!(wrong.map(|form| form.name).collect::<Vec<_>>(), [""; 0]);
}
