CREATE TABLE artist (artist_id INTEGER NOT NULL, name VARCHAR(120), CONSTRAINT artist_pkey PRIMARY KEY (artist_id));
CREATE TABLE album (
    album_id INTEGER NOT NULL, title VARCHAR(160) NOT NULL, artist_id INTEGER NOT NULL,
    CONSTRAINT album_pkey PRIMARY KEY (album_id), CONSTRAINT album_artist_id_fkey FOREIGN KEY (artist_id) REFERENCES artist (artist_id));
CREATE TABLE employee (
    employee_id INTEGER NOT NULL, last_name VARCHAR(20) NOT NULL, first_name VARCHAR(20) NOT NULL, title VARCHAR(30), reports_to INTEGER,
    birth_date TIMESTAMP, hire_date TIMESTAMP, city VARCHAR(40), country VARCHAR(40), phone VARCHAR(24), email VARCHAR(60),
    CONSTRAINT employee_pkey PRIMARY KEY (employee_id),
    CONSTRAINT employee_reports_to_fkey FOREIGN KEY (reports_to) REFERENCES employee (employee_id));
CREATE TABLE customer (
    customer_id INTEGER NOT NULL, first_name VARCHAR(40) NOT NULL, last_name VARCHAR(20) NOT NULL, company VARCHAR(80), city VARCHAR(40),
    country VARCHAR(40), email VARCHAR(60) NOT NULL, support_rep_id INTEGER, CONSTRAINT customer_pkey PRIMARY KEY (customer_id),
    CONSTRAINT customer_support_rep_id_fkey FOREIGN KEY (support_rep_id) REFERENCES employee (employee_id));
CREATE TABLE genre (genre_id INTEGER NOT NULL, name VARCHAR(120), CONSTRAINT genre_pkey PRIMARY KEY (genre_id));
CREATE TABLE media_type (media_type_id INTEGER NOT NULL, name VARCHAR(120), CONSTRAINT media_type_pkey PRIMARY KEY (media_type_id));
CREATE TABLE track (
    track_id INTEGER NOT NULL, name VARCHAR(200) NOT NULL, album_id INTEGER, media_type_id INTEGER NOT NULL, genre_id INTEGER,
    composer VARCHAR(220), milliseconds INTEGER NOT NULL, bytes INTEGER, unit_price NUMERIC(10,2) NOT NULL,
    CONSTRAINT track_pkey PRIMARY KEY (track_id), CONSTRAINT track_album_id_fkey FOREIGN KEY (album_id) REFERENCES album (album_id),
    CONSTRAINT track_genre_id_fkey FOREIGN KEY (genre_id) REFERENCES genre (genre_id),
    CONSTRAINT track_media_type_id_fkey FOREIGN KEY (media_type_id) REFERENCES media_type (media_type_id));
CREATE TABLE invoice (
    invoice_id INTEGER NOT NULL, customer_id INTEGER NOT NULL, invoice_date TIMESTAMP NOT NULL, billing_city VARCHAR(40),
    billing_country VARCHAR(40), total NUMERIC(10,2) NOT NULL, CONSTRAINT invoice_pkey PRIMARY KEY (invoice_id),
    CONSTRAINT invoice_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customer (customer_id));
CREATE TABLE invoice_line (
    invoice_line_id INTEGER NOT NULL, invoice_id INTEGER NOT NULL, track_id INTEGER NOT NULL, unit_price NUMERIC(10,2) NOT NULL,
    quantity INTEGER NOT NULL, CONSTRAINT invoice_line_pkey PRIMARY KEY (invoice_line_id),
    CONSTRAINT invoice_line_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoice (invoice_id),
    CONSTRAINT invoice_line_track_id_fkey FOREIGN KEY (track_id) REFERENCES track (track_id));
CREATE TABLE playlist (playlist_id INTEGER NOT NULL, name VARCHAR(120), CONSTRAINT playlist_pkey PRIMARY KEY (playlist_id));
CREATE TABLE playlist_track (
    playlist_id INTEGER NOT NULL, track_id INTEGER NOT NULL, CONSTRAINT playlist_track_pkey PRIMARY KEY (playlist_id, track_id),
    CONSTRAINT playlist_track_playlist_id_fkey FOREIGN KEY (playlist_id) REFERENCES playlist (playlist_id),
    CONSTRAINT playlist_track_track_id_fkey FOREIGN KEY (track_id) REFERENCES track (track_id));
INSERT INTO genre VALUES (1, 'Rock'), (2, 'Jazz'), (9, 'Pop');
INSERT INTO media_type VALUES (1, 'MPEG audio file'), (2, 'Protected AAC audio file');
INSERT INTO artist VALUES (1, 'AC/DC'), (2, 'Accept');
INSERT INTO album VALUES (1, 'For Those About To Rock', 1), (2, 'Balls to the Wall', 2);
INSERT INTO employee VALUES (1, 'Adams', 'Andrew', 'General Manager', NULL, '1962-02-18 00:00:00', '2002-08-14 00:00:00', 'Edmonton', 'Canada', NULL, 'andrew@chinook.example'),
    (2, 'Edwards', 'Nancy', 'Sales Manager', 1, '1958-12-08 00:00:00', '2002-05-01 00:00:00', 'Calgary', 'Canada', NULL, 'nancy@chinook.example');
INSERT INTO customer VALUES (1, 'Luis', 'Goncalves', 'Embraer', 'Sao Jose', 'Brazil', 'luisg@embraer.example', 2);
INSERT INTO track VALUES (1, 'For Those About To Rock', 1, 1, 1, 'Young', 343719, 11170334, 0.99);
INSERT INTO invoice VALUES (1, 1, '2021-01-01 00:00:00', 'Sao Jose', 'Brazil', 0.99);
INSERT INTO invoice_line VALUES (1, 1, 1, 0.99, 1);
INSERT INTO playlist VALUES (1, 'Music');
INSERT INTO playlist_track VALUES (1, 1);
