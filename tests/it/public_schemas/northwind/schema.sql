CREATE TABLE categories (category_id smallint NOT NULL PRIMARY KEY, category_name character varying(15) NOT NULL, description text, picture bytea);
CREATE TABLE customers (
    customer_id character varying(5) NOT NULL PRIMARY KEY, company_name character varying(40) NOT NULL, contact_name character varying(30),
    contact_title character varying(30), city character varying(15), postal_code character varying(10), country character varying(15),
    phone character varying(24));
CREATE TABLE employees (
    employee_id smallint NOT NULL PRIMARY KEY, last_name character varying(20) NOT NULL, first_name character varying(10) NOT NULL,
    title character varying(30), title_of_courtesy character varying(25), birth_date date, hire_date date, city character varying(15),
    notes text, reports_to smallint REFERENCES employees);
CREATE TABLE region (region_id smallint NOT NULL PRIMARY KEY, region_description character varying(60) NOT NULL);
CREATE TABLE territories (
    territory_id character varying(20) NOT NULL PRIMARY KEY, territory_description character varying(60) NOT NULL,
    region_id smallint NOT NULL REFERENCES region);
CREATE TABLE employee_territories (
    employee_id smallint NOT NULL REFERENCES employees, territory_id character varying(20) NOT NULL REFERENCES territories,
    PRIMARY KEY (employee_id, territory_id));
CREATE TABLE suppliers (supplier_id smallint NOT NULL PRIMARY KEY, company_name character varying(40) NOT NULL, country character varying(15));
CREATE TABLE products (
    product_id smallint NOT NULL PRIMARY KEY, product_name character varying(40) NOT NULL, supplier_id smallint REFERENCES suppliers,
    category_id smallint REFERENCES categories, quantity_per_unit character varying(20), unit_price real, units_in_stock smallint,
    reorder_level smallint, discontinued integer NOT NULL);
CREATE TABLE shippers (shipper_id smallint NOT NULL PRIMARY KEY, company_name character varying(40) NOT NULL, phone character varying(24));
CREATE TABLE orders (
    order_id smallint NOT NULL PRIMARY KEY, customer_id character varying(5) REFERENCES customers, employee_id smallint REFERENCES employees,
    order_date date, required_date date, shipped_date date, ship_via smallint REFERENCES shippers, freight real,
    ship_name character varying(40), ship_city character varying(15), ship_country character varying(15));
CREATE TABLE order_details (
    order_id smallint NOT NULL REFERENCES orders, product_id smallint NOT NULL REFERENCES products, unit_price real NOT NULL,
    quantity smallint NOT NULL, discount real NOT NULL, PRIMARY KEY (order_id, product_id));
INSERT INTO categories VALUES (1, 'Beverages', 'Soft drinks, coffees, teas', NULL), (2, 'Condiments', 'Sauces', NULL);
INSERT INTO customers VALUES ('ALFKI', 'Alfreds Futterkiste', 'Maria Anders', NULL, 'Berlin', '12209', 'Germany', NULL),
    ('BONAP', 'Bon app''', 'Laurence Lebihans', NULL, 'Marseille', '13008', 'France', NULL);
INSERT INTO employees VALUES (1, 'Davolio', 'Nancy', 'Sales Representative', 'Ms.', '1948-12-08', '1992-05-01', 'Seattle', NULL, NULL);
INSERT INTO region VALUES (1, 'Eastern'), (2, 'Western');
INSERT INTO territories VALUES ('01581', 'Westboro', 1), ('98004', 'Bellevue', 2);
INSERT INTO suppliers VALUES (1, 'Exotic Liquids', 'UK'), (2, 'New Orleans Cajun Delights', 'USA');
INSERT INTO products VALUES (1, 'Chai', 1, 1, '10 boxes x 20 bags', 18, 39, 10, 0), (4, 'Cajun Seasoning', 2, 2, '48 - 6 oz jars', 22, 53, 0, 0);
INSERT INTO shippers VALUES (1, 'Speedy Express', '(503) 555-9831'), (2, 'United Package', '(503) 555-3199');
INSERT INTO orders VALUES (10248, 'BONAP', 1, '1996-07-04', '1996-08-01', '1996-07-16', 1, 32.38, 'Vins', 'Reims', 'France');
INSERT INTO order_details VALUES (10248, 1, 14, 12, 0);
