CREATE TABLE concept (
    concept_id integer NOT NULL PRIMARY KEY, concept_name varchar(255) NOT NULL, domain_id varchar(20) NOT NULL,
    vocabulary_id varchar(20) NOT NULL, standard_concept varchar(1), concept_code varchar(50) NOT NULL);
CREATE TABLE location (location_id integer NOT NULL PRIMARY KEY, city varchar(50), state varchar(2), zip varchar(9), location_source_value varchar(50));
CREATE TABLE care_site (
    care_site_id integer NOT NULL PRIMARY KEY, care_site_name varchar(255), place_of_service_concept_id integer REFERENCES concept,
    location_id integer REFERENCES location, care_site_source_value varchar(50));
CREATE TABLE provider (
    provider_id integer NOT NULL PRIMARY KEY, provider_name varchar(255), npi varchar(20), specialty_concept_id integer REFERENCES concept,
    care_site_id integer REFERENCES care_site, provider_source_value varchar(50));
CREATE TABLE person (
    person_id integer NOT NULL PRIMARY KEY, gender_concept_id integer NOT NULL REFERENCES concept, year_of_birth integer NOT NULL,
    month_of_birth integer, day_of_birth integer, birth_datetime timestamp, race_concept_id integer NOT NULL REFERENCES concept,
    ethnicity_concept_id integer NOT NULL REFERENCES concept, location_id integer REFERENCES location, provider_id integer REFERENCES provider,
    care_site_id integer REFERENCES care_site, person_source_value varchar(50), gender_source_value varchar(50),
    gender_source_concept_id integer REFERENCES concept);
CREATE TABLE observation_period (
    observation_period_id integer NOT NULL PRIMARY KEY, person_id integer NOT NULL REFERENCES person, observation_period_start_date date NOT NULL,
    observation_period_end_date date NOT NULL, period_type_concept_id integer NOT NULL REFERENCES concept);
CREATE TABLE visit_occurrence (
    visit_occurrence_id integer NOT NULL PRIMARY KEY, person_id integer NOT NULL REFERENCES person,
    visit_concept_id integer NOT NULL REFERENCES concept, visit_start_date date NOT NULL, visit_start_datetime timestamp,
    visit_end_date date NOT NULL, visit_end_datetime timestamp, visit_type_concept_id integer NOT NULL REFERENCES concept,
    provider_id integer REFERENCES provider, care_site_id integer REFERENCES care_site, visit_source_value varchar(50),
    visit_source_concept_id integer REFERENCES concept, preceding_visit_occurrence_id integer REFERENCES visit_occurrence);
CREATE TABLE condition_occurrence (
    condition_occurrence_id integer NOT NULL PRIMARY KEY, person_id integer NOT NULL REFERENCES person,
    condition_concept_id integer NOT NULL REFERENCES concept, condition_start_date date NOT NULL, condition_end_date date,
    condition_type_concept_id integer NOT NULL REFERENCES concept, stop_reason varchar(20), provider_id integer REFERENCES provider,
    visit_occurrence_id integer REFERENCES visit_occurrence, condition_source_value varchar(50), condition_source_concept_id integer REFERENCES concept);
CREATE TABLE measurement (
    measurement_id integer NOT NULL PRIMARY KEY, person_id integer NOT NULL REFERENCES person,
    measurement_concept_id integer NOT NULL REFERENCES concept, measurement_date date NOT NULL,
    measurement_type_concept_id integer NOT NULL REFERENCES concept, value_as_number numeric, unit_concept_id integer REFERENCES concept,
    visit_occurrence_id integer REFERENCES visit_occurrence, measurement_source_value varchar(50), unit_source_value varchar(50));
INSERT INTO concept VALUES (0, 'No matching concept', 'Metadata', 'None', NULL, 'No matching concept'), (8507, 'MALE', 'Gender', 'Gender', 'S', 'M'),
    (8532, 'FEMALE', 'Gender', 'Gender', 'S', 'F'), (8527, 'White', 'Race', 'Race', 'S', '5'), (38003564, 'Not Hispanic', 'Ethnicity', 'Ethnicity', 'S', 'Not'),
    (9201, 'Inpatient Visit', 'Visit', 'Visit', 'S', 'IP'), (9202, 'Outpatient Visit', 'Visit', 'Visit', 'S', 'OP'),
    (32817, 'EHR', 'Type Concept', 'Type Concept', 'S', 'OMOP4976890'), (201826, 'Type 2 diabetes mellitus', 'Condition', 'SNOMED', 'S', '44054006'),
    (3004410, 'Hemoglobin A1c', 'Measurement', 'LOINC', 'S', '4548-4'), (8554, 'percent', 'Unit', 'UCUM', 'S', '%');
INSERT INTO location VALUES (1, 'Boston', 'MA', '02115', 'L1');
INSERT INTO care_site VALUES (1, 'General Hospital', 9201, 1, 'CS1');
INSERT INTO provider VALUES (1, 'Dr. Old', '1', 0, 1, 'PR1');
INSERT INTO person VALUES (1, 8507, 1940, 1, 1, NULL, 8527, 38003564, 1, 1, 1, 'p0', 'M', 0);
INSERT INTO visit_occurrence VALUES (1, 1, 9201, '2020-01-01', NULL, '2020-01-02', NULL, 32817, 1, 1, 'v0', 0, NULL);
