//! Deltas for well-known public schemas: a person edits at most three places of a table's draft, and every row arrives. The schemas are
//! condensed to characteristic tables; each has its own folder with SQL and files.

use std::path::Path;

use crate::schemas::{Edit, Shape};
use crate::support::REPOSITORY;
use crate::target::live::On;

/// The edit that says how other programs number the rows of tables without a sequence.
const LOCK: Edit = ("", "# load: { lock: table }", "load: { lock: table }");

/// A production with the schema of this name, and its delta.
fn shape(on: On, name: &str) -> Shape {
    let folder = Path::new(REPOSITORY).join("tests/it/public_schemas").join(name);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.join("in")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.push((file, std::fs::read_to_string(path).unwrap()));
    }
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Shape::new(on, &std::fs::read_to_string(folder.join("schema.sql")).unwrap(), &files)
}

fn chinook(on: On) {
    let track: [Edit; 2] = [
        ("track", "# CHOOSE: - { column: media_type_id", "- { column: media_type_id"),
        ("track", "# CHOOSE: - { column: genre_id", "- { column: genre_id"),
    ];
    let shape = shape(on, "chinook");
    shape.load(on.choose(&track, &[LOCK, track[0], track[1]]));
    let tracks = "SELECT t.name || '|' || a.title || '|' || r.name || '|' || g.name || '|' || m.name || '|' || t.unit_price FROM track AS t
         JOIN album AS a ON a.album_id = t.album_id JOIN artist AS r ON r.artist_id = a.artist_id JOIN genre AS g ON g.genre_id = t.genre_id
         JOIN media_type AS m ON m.media_type_id = t.media_type_id WHERE t.track_id > 1 ORDER BY 1";
    assert_eq!(
        shape.rows(tracks),
        [
            "Blue in Green|Kind of Blue|Miles Davis|Jazz|MPEG audio file|0.99",
            "Hysteria|Absolution|Muse|Rock|Protected AAC audio file|1.29",
            "So What|Kind of Blue|Miles Davis|Jazz|MPEG audio file|0.99",
        ]
    );
    let lines = "SELECT c.last_name || '|' || coalesce(e.last_name || ' of ' || coalesce(b.last_name, '-'), '-') || '|' || i.total || '|' || t.name
         FROM invoice_line AS l JOIN invoice AS i ON i.invoice_id = l.invoice_id JOIN track AS t ON t.track_id = l.track_id
         JOIN customer AS c ON c.customer_id = i.customer_id LEFT JOIN employee AS e ON e.employee_id = c.support_rep_id
         LEFT JOIN employee AS b ON b.employee_id = e.reports_to WHERE i.invoice_id > 1 ORDER BY 1";
    assert_eq!(
        shape.rows(lines),
        [
            "Gruber|Park of Peacock|1.29|Hysteria",
            "Holy|Peacock of -|1.98|Blue in Green",
            "Holy|Peacock of -|1.98|So What"
        ]
    );
    let lists =
        "SELECT p.name || '|' || t.name FROM playlist_track AS x JOIN playlist AS p ON p.playlist_id = x.playlist_id
         JOIN track AS t ON t.track_id = x.track_id WHERE p.playlist_id > 1 ORDER BY 1";
    assert_eq!(shape.rows(lists), ["Night|Hysteria", "Night|So What"]);
    let counts = "SELECT (SELECT count(*) FROM customer) || '|' || (SELECT count(*) FROM employee) || '|' || (SELECT count(*) FROM album)";
    assert_eq!(shape.rows(counts), ["4|4|4"]);
}

each_target! {
    a_chinook_delta_loads_after_few_edits => chinook;
}

#[test]
fn a_pagila_delta_loads_after_few_edits() {
    let shape = shape(On::Postgres, "pagila");
    shape.load(&[
        ("address", "# relationships:", "relationships:"),
        ("address", "# CHOOSE: - { column: city_id", "- { column: city_id"),
        ("film", "# relationships:", "relationships:"),
        ("film", "# CHOOSE: - { column: language_id", "- { column: language_id"),
        ("film_category", "# CHOOSE: - { column: category_id", "- { column: category_id"),
        ("rental", "# CHOOSE: - { column: staff_id", "- { column: staff_id"),
        ("payment", "# CHOOSE: - { column: staff_id", "- { column: staff_id"),
    ]);
    let payments = "SELECT p.amount || '|' || c.first_name || '|' || c.activebool || '|' || a.district || '|' || y.city || '|' || s.first_name || '|' || f.title
             || '|' || f.rating || '|' || trim(l.name) || '|' || g.name || '|' || (f.fulltext @@ to_tsquery('epic'))
         FROM payment AS p JOIN rental AS r USING (rental_id) JOIN customer AS c ON c.customer_id = p.customer_id AND c.customer_id = r.customer_id
         JOIN address AS a USING (address_id) JOIN city AS y USING (city_id) JOIN staff AS s ON s.staff_id = p.staff_id AND s.staff_id = r.staff_id
         JOIN inventory AS i USING (inventory_id) JOIN film AS f USING (film_id) JOIN language AS l USING (language_id)
         JOIN film_category AS x USING (film_id) JOIN category AS g USING (category_id) ORDER BY 1";
    assert_eq!(
        shape.rows(payments),
        [
            "2.99|MARY|true|Nagasaki|Lethbridge|Mike|ACADEMY DINOSAUR|PG|English|Drama|true",
            "4.99|PATRICIA|false|California|Woodridge|Jon|ACE GOLDFINGER|G|Italian|Action|false",
        ]
    );
    let actors = "SELECT f.title || '|' || string_agg(a.last_name, ',' ORDER BY a.last_name) || '|' || array_length(special_features, 1)
         FROM film_actor JOIN film AS f USING (film_id) JOIN actor AS a USING (actor_id) GROUP BY f.film_id ORDER BY 1";
    assert_eq!(shape.rows(actors), ["ACADEMY DINOSAUR|GUINESS,WAHLBERG|2", "ACE GOLDFINGER|WAHLBERG|1"]);
    assert_eq!(shape.rows("SELECT count(*)::text FROM payment_p2022_02"), ["1"]);
}

#[test]
fn a_northwind_delta_loads_after_few_edits() {
    let shape = shape(On::Postgres, "northwind");
    shape.load(&[
        LOCK,
        ("employees", "# relationships:", "relationships:"),
        ("employees", "# CHOOSE: - { column: reports_to", "- { column: reports_to"),
        ("orders", "# CHOOSE: - { column: ship_via", "- { column: ship_via"),
        ("products", "# relationships:", "relationships:"),
        ("products", "# CHOOSE: - { column: supplier_id", "- { column: supplier_id"),
        ("products", "# CHOOSE: - { column: category_id", "- { column: category_id"),
    ]);
    let lines = "SELECT c.company_name || '|' || e.last_name || '|' || coalesce(b.last_name, '-') || '|' || s.company_name || '|' || o.freight || '|'
             || p.product_name || '|' || u.company_name || '|' || g.category_name || '|' || d.unit_price || '|' || d.discount
         FROM order_details AS d JOIN orders AS o USING (order_id) JOIN customers AS c USING (customer_id) JOIN employees AS e USING (employee_id)
         LEFT JOIN employees AS b ON b.employee_id = e.reports_to JOIN shippers AS s ON s.shipper_id = o.ship_via JOIN products AS p USING (product_id)
         JOIN suppliers AS u USING (supplier_id) JOIN categories AS g USING (category_id) WHERE o.order_id > 10248 ORDER BY 1";
    assert_eq!(
        shape.rows(lines),
        [
            "Alfreds Futterkiste|Leverling|Fuller|United Package|3.25|Hot Sauce|New Orleans Cajun Delights|Condiments|7|0",
            "New Company|Fuller|-|Speedy Express|12.5|Green Tea|Exotic Liquids|Beverages|4.5|0",
            "New Company|Fuller|-|Speedy Express|12.5|Hot Sauce|New Orleans Cajun Delights|Condiments|7.25|0.05",
        ]
    );
    let territories = "SELECT e.last_name || '|' || t.territory_description FROM employee_territories JOIN employees AS e USING (employee_id)
         JOIN territories AS t USING (territory_id) ORDER BY 1";
    assert_eq!(shape.rows(territories), ["Fuller|Westboro", "Leverling|Bellevue", "Leverling|Westboro"]);
    assert_eq!(shape.rows("SELECT city FROM customers WHERE customer_id = 'NEWCO'"), ["Köln"]);
}

#[test]
fn an_omop_delta_loads_after_one_edit() {
    let shape = shape(On::Postgres, "omop");
    shape.load(&[LOCK]);
    let conditions = "SELECT p.person_source_value || '|' || g.concept_name || '|' || c.concept_name || '|' || v.visit_source_value || '|' || l.city || '|'
             || coalesce(r.provider_name, '-') || '|' || m.value_as_number
         FROM condition_occurrence AS o JOIN person AS p USING (person_id) JOIN concept AS g ON g.concept_id = p.gender_concept_id
         JOIN concept AS c ON c.concept_id = o.condition_concept_id JOIN visit_occurrence AS v ON v.visit_occurrence_id = o.visit_occurrence_id AND v.person_id = p.person_id
         JOIN location AS l USING (location_id) LEFT JOIN provider AS r ON r.provider_id = o.provider_id
         JOIN measurement AS m ON m.visit_occurrence_id = v.visit_occurrence_id AND m.person_id = p.person_id ORDER BY 1";
    assert_eq!(
        shape.rows(conditions),
        [
            "p1|MALE|Type 2 diabetes mellitus|v1|Springfield|Dr. New|7.1",
            "p2|FEMALE|Type 2 diabetes mellitus|v3|Springfield|-|6.4",
        ]
    );
    let visits = "SELECT v.visit_source_value || '|' || coalesce(b.visit_source_value, '-') || '|' || s.care_site_name FROM visit_occurrence AS v
         LEFT JOIN visit_occurrence AS b ON b.visit_occurrence_id = v.preceding_visit_occurrence_id JOIN care_site AS s ON s.care_site_id = v.care_site_id
         WHERE v.visit_occurrence_id > 1 ORDER BY 1";
    assert_eq!(shape.rows(visits), ["v1|-|Clinic North", "v2|v1|Clinic North", "v3|-|Clinic North"]);
    assert_eq!(shape.rows("SELECT max(person_id) || '|' || count(*) FROM person"), ["4|4"]);
    assert_eq!(shape.rows("SELECT count(*)::text FROM observation_period"), ["2"]);
}

#[test]
fn an_adventure_works_delta_loads_after_few_edits() {
    let shape = shape(On::Postgres, "adventure_works");
    shape.load(&[
        ("person.address", "# relationships:", "relationships:"),
        ("person.address", "# CHOOSE: - { column: stateprovinceid", "- { column: stateprovinceid"),
        ("sales.customer", "# CHOOSE: - { column: territoryid", "- { column: territoryid"),
        ("sales.salesorderheader", "# CHOOSE: - { column: territoryid", "- { column: territoryid"),
        ("sales.salesorderheader", "# CHOOSE: - { column: shipmethodid", "- { column: shipmethodid"),
    ]);
    let lines = "SELECT p.lastname || '|' || t.name || '|' || m.name || '|' || b.city || '|' || s.name || '|' || a.city || '|' || o.onlineorderflag || '|'
             || o.duedate::date || '|' || r.name || '|' || d.unitprice || '|' || coalesce((xpath('//Cars/text()', p.demographics))[1]::text, '-')
         FROM sales.salesorderdetail AS d JOIN sales.salesorderheader AS o USING (salesorderid) JOIN sales.customer AS c USING (customerid)
         JOIN person.person AS p ON p.businessentityid = c.personid JOIN sales.salesterritory AS t ON t.territoryid = o.territoryid AND t.territoryid = c.territoryid
         JOIN purchasing.shipmethod AS m USING (shipmethodid) JOIN person.address AS b ON b.addressid = o.billtoaddressid
         JOIN person.address AS a ON a.addressid = o.shiptoaddressid JOIN person.stateprovince AS s ON s.stateprovinceid = b.stateprovinceid
         JOIN production.product AS r USING (productid) ORDER BY 1";
    assert_eq!(
        shape.rows(lines),
        [
            "Chen|Germany|XRQ - TRUCK GROUND|Passau|Bayern|Seattle|false|2025-01-12|Helmet|34.99|-",
            "Ruiz|Northwest|CARGO TRANSPORT 5|Seattle|Washington|Seattle|true|2025-01-10|Helmet|34.99|2",
            "Ruiz|Northwest|CARGO TRANSPORT 5|Seattle|Washington|Seattle|true|2025-01-10|Road Bike|782.99|2",
        ]
    );
    let mails = "SELECT p.firstname || '|' || e.emailaddress FROM person.emailaddress AS e JOIN person.person AS p USING (businessentityid)
         JOIN person.businessentity USING (businessentityid) ORDER BY 1";
    assert_eq!(shape.rows(mails), ["Ana|ana@x.example", "Ana|ana@y.example", "Liu|liu@x.example"]);
}
